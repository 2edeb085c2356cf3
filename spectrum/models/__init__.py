"""Model families: layouts of their denoisers, pipelines and weights, architectures without weights, solvers.

Knows no caching methods.
"""
