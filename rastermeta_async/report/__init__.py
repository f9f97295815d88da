"""The report: what is in a catalog as a page, as pictures, and as the cube that both show."""
