"""Metrics of stored samples, and the columns that tables give them."""
