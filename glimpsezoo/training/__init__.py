"""Training by recipe, from a model's name to a card."""
