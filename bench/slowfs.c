/* slowfs: a read-only view of a folder in which every open and every read takes a while, as on a far file server, any
 * number at once. Names and attributes cost nothing, as after `find`, whose listings a client of a file server remembers
 * (and since the kernel asks FUSE for one name of a folder at a time).
 *
 *   gcc -O2 -o slowfs slowfs.c $(pkg-config fuse3 --cflags --libs)      # Debian: libfuse3-dev pkg-config fuse3
 *   ./slowfs ROOT DELAY_MS -f -o ro,max_threads=200 MOUNTPOINT          # fusermount3 -u MOUNTPOINT ends it
 *
 * With STAT_MS in the environment, to ask for the state of a file takes so long from SIGHUP on, each time. Where a name is
 * not known yet, the kernel asks for one in a folder after the other: let them be known before.
 * With LIST_MS, to list a folder takes so long.
 *
 * SIGUSR1 makes opens and reads a hundred times as slow, SIGUSR2 makes them quick again.
 *
 * MOUNTPOINT/.count holds how often each was asked for.
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char root[4096];
static volatile useconds_t delay;
static useconds_t stat_delay, list_delay;
static volatile int stats_wait;
static atomic_long lookups, opens, reads, lists;

static const char *under(const char *path, char *to) { snprintf(to, 8192, "%s%s", root, path); return to; }
static void wait_for(atomic_long *count) { atomic_fetch_add(count, 1); usleep(delay); }
static int counters(char *to) {
    return snprintf(to, 200, "{\"lookup\": %ld, \"open\": %ld, \"read\": %ld, \"list\": %ld}\n", lookups, opens, reads, lists);
}

static int s_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
    char p[8192];
    if (!strcmp(path, "/.count")) { memset(st, 0, sizeof *st); st->st_mode = S_IFREG | 0444; st->st_nlink = 1; st->st_size = 199; return 0; }
    atomic_fetch_add(&lookups, 1);
    int found = lstat(under(path, p), st) ? -errno : 0;
    if (stats_wait && (found || !S_ISDIR(st->st_mode))) usleep(stat_delay);
    return found;
}
static int s_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off, struct fuse_file_info *fi, enum fuse_readdir_flags fl) {
    char p[8192]; struct dirent *e; DIR *d = opendir(under(path, p));
    if (!d) return -errno;
    atomic_fetch_add(&lists, 1);
    if (list_delay) usleep(list_delay);
    while ((e = readdir(d))) { struct stat st = {.st_ino = e->d_ino, .st_mode = DTTOIF(e->d_type)}; if (fill(buf, e->d_name, &st, 0, 0)) break; }
    closedir(d);
    return 0;
}
static int s_opendir(const char *path, struct fuse_file_info *fi) { fi->cache_readdir = 1; fi->keep_cache = 1; return 0; }
static int s_open(const char *path, struct fuse_file_info *fi) {
    char p[8192];
    if (!strcmp(path, "/.count")) { fi->direct_io = 1; fi->fh = 0; return 0; }
    wait_for(&opens);
    int fd = open(under(path, p), O_RDONLY);
    if (fd < 0) return -errno;
    fi->fh = fd;
    return 0;
}
static int s_read(const char *path, char *buf, size_t size, off_t off, struct fuse_file_info *fi) {
    if (!fi->fh) { char t[201]; int n = counters(t); if (off >= n) return 0; n -= off; if ((size_t)n > size) n = size; memcpy(buf, t + off, n); return n; }
    wait_for(&reads);
    ssize_t n = pread(fi->fh, buf, size, off);
    return n < 0 ? -errno : n;
}
static int s_release(const char *path, struct fuse_file_info *fi) { if (fi->fh) close(fi->fh); return 0; }
/* Reads ahead are background requests, of which the kernel has 12 under way unless it is told otherwise. */
static void *s_init(struct fuse_conn_info *c, struct fuse_config *cfg) { c->max_background = c->congestion_threshold = 1024; cfg->attr_timeout = stat_delay ? 0 : 60; cfg->entry_timeout = 60; return NULL; }

static const struct fuse_operations ops = {.getattr = s_getattr, .readdir = s_readdir, .opendir = s_opendir, .open = s_open, .read = s_read, .release = s_release, .init = s_init};

static void change(int number) { if (number == SIGHUP) stats_wait = 1; else if (number == SIGUSR1) delay *= 100; else delay /= 100; }

int main(int argc, char **argv) {
    if (argc < 4 || !realpath(argv[1], root)) { fprintf(stderr, "usage: slowfs ROOT DELAY_MS [fuse options] MOUNTPOINT\n"); return 2; }
    delay = (useconds_t)(atof(argv[2]) * 1000);
    if (getenv("STAT_MS")) stat_delay = (useconds_t)(atof(getenv("STAT_MS")) * 1000);
    if (getenv("LIST_MS")) list_delay = (useconds_t)(atof(getenv("LIST_MS")) * 1000);
    signal(SIGUSR1, change);
    signal(SIGUSR2, change);
    if (stat_delay) signal(SIGHUP, change);
    argv[2] = argv[0];
    return fuse_main(argc - 2, argv + 2, &ops, NULL);
}
