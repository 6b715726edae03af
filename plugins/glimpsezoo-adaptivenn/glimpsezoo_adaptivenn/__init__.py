"""AdaptiveNN (Wang et al., Nature Machine Intelligence 2025) for glimpsezoo."""
