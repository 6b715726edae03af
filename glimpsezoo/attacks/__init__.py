"""Attacks: images changed within a budget so that a glimpse model errs, or looks longer than it needs to; and whether to believe them."""
