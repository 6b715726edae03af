"""What has a name: plugins, cards, recipes, papers and repositories of the Hub."""
