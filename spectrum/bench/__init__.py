"""The bench: from a config to samples and their record. `job` is the order of the work; the rest are its stages."""
