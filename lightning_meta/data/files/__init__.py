"""Files of data sets: caches, downloads, formats."""
