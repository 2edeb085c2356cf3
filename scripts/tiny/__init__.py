"""The embedded model's data, training and export."""
