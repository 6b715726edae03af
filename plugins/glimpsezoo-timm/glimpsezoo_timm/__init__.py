"""Any timm model as the one-look case of glimpsezoo's protocol: the feed-forward baselines."""
