"""Refuses what was fitted for another run."""

from typing import Any

from spectrum.core.clock import SIGMA_TOLERANCE, Clock
from spectrum.core.errors import refuse
from spectrum.core.method import Method
from spectrum.hooks import scheduler as schedulers


def check_fit(method: Method, scheduler: Any, steps: int) -> None:
    """Refuse to run what was fitted for another number of steps, or on another grid of sigmas.

    Args:
        method: the method.
        scheduler: the pipeline's, with its timesteps set.
        steps: number of denoising steps of this run.

    Raises:
        SpectrumError: with what differs, and what to type.
    """
    wanted = method.fitted_sigmas
    again = "python scripts/fit.py" if method.memory else "python scripts/calibrate.py"
    if method.fitted_steps not in (None, steps):
        values = "" if method.memory else ", or give its values, for example 'schedule.threshold=0.1'"
        refuse(
            f"what {method.name} needs was fitted for {method.fitted_steps} steps and this run has {steps}: fit it for "
            f"them with {again}{values}"
        )
    if wanted is None or method.fitted_steps is None:
        return
    here = schedulers.readings(scheduler, Clock.sigma)[0]
    for step, (was, now) in enumerate(zip(wanted, here, strict=True)):
        if abs(was - now) > SIGMA_TOLERANCE * max(wanted):
            refuse(
                f"the plan of {method.name} was made on another grid: at step {step} sigma was {was:.4f} and is "
                f"{now:.4f} here (the scheduler's shift, or its timesteps): fit another with {again}, or apply it with "
                "force=True (plan_force=true)"
            )
