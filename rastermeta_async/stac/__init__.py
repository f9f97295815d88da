"""Catalogs as STAC items."""
