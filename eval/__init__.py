"""Metrics and statistics of stored samples."""
