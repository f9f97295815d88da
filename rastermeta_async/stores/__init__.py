"""Object stores: URLs, credentials, ranged reads, and what a store answers."""
