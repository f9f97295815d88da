"""Worker processes: the pool, a child as the run sees it, and the worker itself."""
