"""What docs/generate.py writes: pages of Markdown from the code and the cards."""
