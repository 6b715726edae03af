"""On Learning Where To Look (Ranzato, 2014) for glimpsezoo."""
