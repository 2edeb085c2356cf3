"""What methods need fitted or typed to run on toys of ten steps."""

import dataclasses
import functools

from spectrum.api import denoisers
from spectrum.core.errors import SpectrumError
from spectrum.core.planned import planned
from spectrum.planning.evaluate import Evaluate
from spectrum.planning.gap import Settings
from spectrum.planning.make import make
from spectrum.planning.player import Player
from spectrum.planning.rollout import Rollouts

PLANNED = [0, 1, 2, 4, 7]
FITTED = {
    "planned": {"run_steps": PLANNED, "weights": {"": [[1.0], [1.0], [-1.0, 2.0], [-0.6, 1.6], [-0.5, 1.5]]}},
    "teacache": {"coefficients": [1.0, 0.0]},
    "magcache": {"ratios": [1.0, 1.2, 1.1, 1.05, 1.0, 1.0, 0.98, 0.97, 0.95, 0.9]},
}
TYPED = {
    "planned": [f"schedule.run_steps={PLANNED}"],
    "dbcache": ["method.front_blocks=1", "schedule.warmup=3"],
    "easycache": ["schedule.warmup=3"],
}


def planned_on(pipe, sample, method):
    """A planned method with weights fitted on a pipeline; as it is, where that has two denoisers or several loops.

    Args:
        pipe: the pipeline.
        sample: calls it, always with the same noise.
        method: the method, with weights made by hand.
    """
    if len(denoisers(pipe)) > 1:
        return method
    with Player(pipe, method.site) as player:
        try:
            rollouts = Rollouts(player, sample)
        except SpectrumError as error:
            assert "section after section" in str(error), error
            return method
        made = make(Evaluate([rollouts], Settings()), lambda evaluate: PLANNED)
    forecast = functools.partial(planned, run_steps=PLANNED, weights=made.weights)
    return dataclasses.replace(method, forecast=forecast, memory=3)
