"""The loop and what it moves: images, noise, regions, the protocol of models, exits, MACs."""
