"""Members of archives: find them, read their bytes, and make their rows.

An archive is read through `base.ReadAt`, so that files and objects in stores are read alike.
Nothing is unpacked to a disk. Bytes of any kind cost bounded time and memory.
"""
