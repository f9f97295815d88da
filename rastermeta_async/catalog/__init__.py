"""The crash-safe catalog: parts, log, sealing, keeping it up to date, and reading it back."""
