"""Plain GeoTIFF headers, decoded without GDAL: bytes, metadata, images, header, reader."""
