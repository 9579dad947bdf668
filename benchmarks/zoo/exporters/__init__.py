"""One module for each framework; each gives entries, and imports its framework when an entry is built."""
