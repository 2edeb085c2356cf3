"""Another solver on a pipeline's own noise schedule: the multistep control of every table."""

import inspect
from typing import Any

import numpy as np
import torch

from spectrum.errors import refuse


def with_solver(pipe: Any, solver: str | None) -> Any:
    """A pipeline like `pipe`, sharing its weights, with another solver on the same noise; None leaves it as it is.

    What the pipeline's own scheduler is configured with stays, so that the times and what is predicted are the same.
    """
    if solver is None:
        return pipe
    import diffusers

    cls = getattr(diffusers, solver, None)
    if cls is None or not hasattr(cls, "set_timesteps"):
        refuse(f"method.solver={solver} is no scheduler of diffusers: type for example UniPCMultistepScheduler")
    own = pipe.scheduler.config
    usual = type(pipe.scheduler).__name__
    if own.get("invert_sigmas") or "snr_shift_scale" in own:
        refuse(f"method.solver={solver} cannot take the place of this model's {usual}: type method=fewer_steps")
    known = inspect.signature(cls).parameters
    config = {key: value for key, value in own.items() if key in known and key != "solver_type"}
    config["solver_order"] = 2
    if config.setdefault("prediction_type", "flow_prediction") == "flow_prediction":
        config |= {"use_flow_sigmas": True, "flow_shift": own.get("flow_shift", own.get("shift", 1.0))}
    scheduler = cls.from_config(config)
    scheduler = scheduler if "prediction_type" in own else _for_flow_pipelines(scheduler)
    named = inspect.signature(type(pipe)).parameters
    settings = {k: v for k, v in pipe.config.items() if k in named and not isinstance(v, tuple | list)}
    other = type(pipe)(**{**settings, **pipe.components, "scheduler": scheduler})
    other.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return other


def _for_flow_pipelines(scheduler: Any) -> Any:
    """`scheduler`, which from now on takes sigmas in a list (Z-Image), and timesteps apart from them (CogView4)."""
    usual = scheduler.set_timesteps

    def set_timesteps(
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        timesteps: Any = None,
        **more: Any,
    ) -> None:
        more |= {} if sigmas is None else {"sigmas": np.asarray(sigmas)}
        usual(num_inference_steps, device=device, **more)
        if timesteps is not None:
            scheduler.timesteps = torch.as_tensor(timesteps, device=device)

    scheduler.set_timesteps = set_timesteps
    return scheduler
