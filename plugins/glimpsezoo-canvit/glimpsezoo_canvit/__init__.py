"""CanViT (Berreby et al., 2026) for glimpsezoo, an adapter around the authors' package."""
