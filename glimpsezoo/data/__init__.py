"""Data sets by name: the catalogue (torch-free), the base that every source implements, and the sources."""
