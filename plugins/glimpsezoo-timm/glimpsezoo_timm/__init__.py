"""Any timm model as a feed-forward model for glimpsezoo."""
