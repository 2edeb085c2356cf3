"""How far forecasts were off, by running the blocks at skipped steps too."""

import math
from collections.abc import Mapping

from torch import Tensor

from spectrum.hooks.site import SiteResult
from spectrum.hooks.tensors import sample_of
from spectrum.hooks.trajectory import Branch


def relative_error(guess: Tensor, truth: Tensor) -> float:
    """`||guess - truth||_2 / ||truth||_2` over all elements."""
    return relative_errors({"": guess}, {"": truth})


def relative_errors(guess: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> float:
    """`relative_error` over all the tensors of `truth` together, by slot."""
    off = sum((guess[slot].float() - value.float()).square().sum().item() for slot, value in truth.items())
    return math.sqrt(off / sum(value.float().square().sum().item() for value in truth.values()))


def rows_in(values: Mapping[str, Tensor], part: Branch) -> dict[str, Tensor]:
    """The rows of tensors that a branch is about."""
    return {slot: value if part.rows is None else value[part.rows] for slot, value in values.items()}


def note_errors(branch: Branch, result: SiteResult, truth: SiteResult) -> None:
    """Note in a branch, and in its samples, how far feature and velocity were off at this step.

    Args:
        branch: the branch, at a step that was skipped.
        result: what came of it.
        truth: what comes of it when the blocks run.
    """
    velocities = {"": sample_of(result.output)}, {"": sample_of(truth.output)}
    for part in (part for part in branch.parts if not part.ran):
        feature = relative_errors(rows_in(result.features, part), rows_in(truth.features, part))
        velocity = relative_errors(*(rows_in(value, part) for value in velocities))
        part.errors.append({"step": branch.last, "feature": feature, "velocity": velocity})
