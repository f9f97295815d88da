"""Where on Earth rasters lie: outlines in longitude and latitude."""
