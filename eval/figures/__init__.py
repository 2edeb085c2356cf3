"""Figures made of records, and the pictures of one run."""
