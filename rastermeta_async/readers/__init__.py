"""How one header is read: decoders, rasterio for all that none decodes, and sidecar files."""
