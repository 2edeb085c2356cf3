"""Refuses runs that a method cannot have: of another fit, past the last step, over ranks that decide differently."""

from typing import Any

from spectrum.core.clock import SIGMA_TOLERANCE, Clock
from spectrum.core.errors import refuse
from spectrum.core.method import Method
from spectrum.hooks import scheduler as schedulers
from spectrum.hooks.private_api import context_parallel_config


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


def check_step(model: Any, step: int, steps: int) -> None:
    """Refuse a call of the denoiser at a step that the pipeline's scheduler does not have.

    Args:
        model: the denoiser.
        step: where it is called.
        steps: how many the scheduler has.
    """
    if step >= steps:
        refuse(
            f"{type(model).__name__} was called at step {step} of a scheduler that has {steps}: another "
            "pipeline or a loop with a scheduler of its own calls it; step the scheduler of the pipeline that the "
            "method was put on, or call restore(pipe)"
        )


def check_ranks(method: Method, model: Any) -> None:
    """Refuse a method that decides by data on a denoiser whose tokens are split over ranks.

    Args:
        method: the method.
        model: the denoiser.
    """
    by_data = not method.time_only or method.weights_by_data
    if by_data and context_parallel_config(model) is not None:
        refuse(
            f"{method.name} decides by data, of which each rank of a parallel denoiser has a part, so the "
            "ranks could decide differently: type a method of time alone, for example method=spectrum"
        )
