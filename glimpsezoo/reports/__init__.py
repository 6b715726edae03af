"""Output for people: tables, card texts, pages and pictures."""
