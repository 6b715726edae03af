"""Who does the portions of a run: this process, several of them, the ranks of torchrun, or a Ray cluster."""
