"""Finished catalogs, and single records, for people."""
