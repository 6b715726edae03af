"""`glimpsezoo run`: from a request to results on disk."""
