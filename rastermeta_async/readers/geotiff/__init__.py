"""Plain GeoTIFF headers, decoded without GDAL."""
