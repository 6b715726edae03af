"""What the commands do, without their options and printing: train a card, import one, measure models."""
