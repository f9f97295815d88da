"""Object stores: credentials, listings, ranged reads, and what a store answers."""
