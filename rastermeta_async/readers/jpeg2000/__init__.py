"""Usual JP2 headers (JPEG 2000), decoded without GDAL."""
