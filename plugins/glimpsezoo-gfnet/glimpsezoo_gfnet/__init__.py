"""Glance and Focus (Wang et al., NeurIPS 2020) for glimpsezoo."""
