"""Plans from a budget: run steps that are searched, and weights that are fitted in the loop."""
