"""Finished runs as one table and a few figures, from the files of the runs alone."""
