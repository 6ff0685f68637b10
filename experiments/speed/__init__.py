"""How fast this project's own training is here, and how far from what the machine could do."""
