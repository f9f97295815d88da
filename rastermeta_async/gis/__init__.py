"""A catalog in forms that GIS programs and spreadsheets open: tile indexes, tables, layers."""
