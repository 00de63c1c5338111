"""Finished runs in one table and a few pictures: reads the files of the runs, and nothing else of the package."""
