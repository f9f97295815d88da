"""The crash-safe catalog: parts, log, sealing, and keeping it up to date."""
