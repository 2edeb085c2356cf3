"""The clocks that a forecast can run on."""

from enum import StrEnum

SIGMA_TOLERANCE = 1e-3
"""How far the sigmas of a run may be from those that a plan was made for, relative to the largest."""


class Clock(StrEnum):
    """The time variable of a forecast.

    Attributes:
        step: the step's index, 0 to the number of steps; what the paper uses.
        timestep: the denoiser's timestep, 0 to 1000.
        sigma: the noise level, 0 to 1 for flow models.
    """

    step = "step"
    timestep = "timestep"
    sigma = "sigma"
