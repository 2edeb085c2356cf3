"""Another solver on a pipeline's own noise schedule: the multistep control of every table."""

import copy
import inspect
from typing import Any

import numpy as np
import torch

from spectrum.core.errors import refuse
from spectrum.hooks.replaced import Around


def with_solver(pipe: Any, solver: str | None) -> Any:
    """A pipeline like `pipe`, with the same weights and noise schedule, and another solver.

    What the pipeline's own scheduler is configured with stays, so the timesteps and what the denoiser predicts are the
    same.

    Args:
        pipe: a diffusers pipeline; it is not changed.
        solver: scheduler class of diffusers; None returns `pipe` itself.

    Raises:
        SpectrumError: if diffusers has no such scheduler, or it cannot follow this model's noise schedule.
    """
    if solver is None:
        return pipe
    import diffusers

    cls = getattr(diffusers, solver, None)
    if cls is None or not hasattr(cls, "set_timesteps"):
        refuse(f"method.solver={solver} is no scheduler of diffusers: type for example UniPCMultistepScheduler")
    own = pipe.scheduler.config
    replaced = type(pipe.scheduler).__name__
    if own.get("invert_sigmas") or "snr_shift_scale" in own:
        refuse(f"method.solver={solver} cannot take the place of this model's {replaced}: type method=fewer_steps")
    known = inspect.signature(cls).parameters
    config = {key: value for key, value in own.items() if key in known and key != "solver_type"}
    config["solver_order"] = 2
    if config.setdefault("prediction_type", "flow_prediction") == "flow_prediction":
        config |= {"use_flow_sigmas": True, "flow_shift": own.get("flow_shift", own.get("shift", 1.0))}
    scheduler = cls.from_config(config)
    scheduler = scheduler if "prediction_type" in own else _for_flow_pipelines(scheduler)
    other = copy.copy(pipe)
    other.register_modules(scheduler=scheduler)
    return other


def _for_flow_pipelines(scheduler: Any) -> Any:
    """The scheduler, changed to take sigmas as a list (Z-Image passes one) and timesteps beside them (CogView4)."""

    def set_timesteps(
        method: Any,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        timesteps: Any = None,
        **more: Any,
    ) -> None:
        more |= {} if sigmas is None else {"sigmas": np.asarray(sigmas)}
        method(num_inference_steps, device=device, **more)
        if timesteps is not None:
            method.__self__.timesteps = torch.as_tensor(timesteps, device=device)

    scheduler.set_timesteps = Around(scheduler, "set_timesteps", set_timesteps, copied=True)
    return scheduler
