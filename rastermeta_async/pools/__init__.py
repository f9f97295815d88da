"""Where headers are read: in threads of this process, or in worker processes."""
