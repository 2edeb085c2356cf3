"""Figures worked out a second time, with code that shares nothing with `eval` and `spectrum`: see scripts/audit.py."""
