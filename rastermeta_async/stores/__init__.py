"""Object stores: clients, credentials, and what a store answers."""
