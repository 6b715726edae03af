"""Top-down image pyramid traversal (2020) as a glimpsezoo plugin. Importing it loads neither torch nor the models."""
