"""The maths of caching: forecasts, schedules, a method as data, stored features. Knows no diffusers, Hydra or files.

Forecasts, schedules and planning need numpy alone; torch is imported only where tensors are summed.
"""
