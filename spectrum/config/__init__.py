"""Configs: their schema, composing them with Hydra, building a method from one. Samples nothing."""
