"""Attacks: images changed within a budget so that a glimpse model errs, or takes more steps than it needs."""
