"""A model on data under a condition: rows, kept in units."""
