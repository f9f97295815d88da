"""Plain GeoTIFF headers, decoded without GDAL: bytes, metadata, stretch, images, header, reader."""
