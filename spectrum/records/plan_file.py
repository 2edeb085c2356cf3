"""A plan as a file: run steps and fitted weights, and all by which one can tell whether it goes with a run."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectrum.core.clock import SIGMA_TOLERANCE
from spectrum.core.errors import refuse
from spectrum.records.digests import record_digest
from spectrum.records.files import finite, write_json
from spectrum.records.timing import STRICT

FORMAT = 1
"""The format that this version writes. Raised when an older plan could be misread."""
FITTED = "fitted"
"""Where a plan's weights come from, unless they are those of a method's forecast."""
AGAIN = "fit it again with python scripts/fit.py"


@dataclass(frozen=True)
class Setting:
    """What a plan was fitted for.

    Attributes:
        pipeline: class of diffusers.
        model: what pins the weights, see `spectrum.models.identity.model_identity`; None where that is not known.
        steps: denoising steps.
        solver: the scheduler's class.
        sigmas: the sigma of each step.
        height: pixels; None where the pipeline chooses.
        width: pixels.
        frames: of a video; None for a picture.
        call: the pipeline's own arguments, such as its guidance.
        weights: fingerprint of the denoiser's weights, see `spectrum.models.fingerprint`; None where it is not known.
    """

    __pydantic_config__ = STRICT
    pipeline: str
    model: str | None
    steps: int
    solver: str | None
    sigmas: list[float]
    height: int | None = None
    width: int | None = None
    frames: int | None = None
    call: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None


@dataclass(frozen=True)
class Expected:
    """What a plan is worth, on prompts that its weights were not fitted on.

    Attributes:
        psnr: mean PSNR to the uncached run, dB, over folds of the prompts of which each was left out of the fit once.
        interval: half-width of its 95 % interval over the prompts; None for fewer than three prompts.
        latents: the same of the final latents, as signal over error.
        folds: number of folds; 1 where there was one prompt, which the weights were then fitted on.
    """

    __pydantic_config__ = STRICT
    psnr: float | None
    interval: float | None
    latents: float
    folds: int


@dataclass(frozen=True)
class PlanFile:
    """A plan.

    Attributes:
        format: `FORMAT`.
        run_steps: the steps at which the blocks run; the first is 0.
        weights: by CFG branch, or under `""` for all of them: for each run step the weights of the newest features in
            the gap behind it, oldest first.
        site: where features are stored: `output` or `exit`.
        space: what is stored: `feature` or `residual`.
        setting: what it was fitted for.
        prompts: digest of the prompts that it was fitted on.
        samples: their number, times seeds.
        planner: how the run steps were found, with its parameters; `given` where they were typed.
        ridges: the ridge of each gap; 0 where nothing was fitted.
        conditions: the condition number of each gap's normal matrix.
        expected: what it is worth.
        full_runs: what it cost, in uncached runs of one sample.
        made_with: versions, commit and hardware.
        digest: of all else; empty until the plan is written.
        forecast: where the weights come from: `fitted` (in the loop), `local` (to each velocity by itself), or the name
            of the method whose forecast gives them.
    """

    __pydantic_config__ = STRICT
    format: int
    run_steps: list[int]
    weights: dict[str, list[list[float]]]
    site: str
    space: str
    setting: Setting
    prompts: str
    samples: int
    planner: dict[str, Any]
    ridges: list[float]
    conditions: list[float]
    expected: Expected | None
    full_runs: float
    made_with: dict[str, Any]
    digest: str = ""
    forecast: str = FITTED

    @property
    def name(self) -> str:
        """How it is called in messages: its number of runs and of steps."""
        return f"the plan of {len(self.run_steps)} runs in {self.setting.steps} steps"


@functools.cache
def _adapter() -> Any:
    import pydantic

    return pydantic.TypeAdapter(PlanFile)


def read_plan(path: Path) -> PlanFile:
    """The plan in a file. It is data: nothing in it is run.

    Raises:
        SpectrumError: if the file is missing, no whole plan, of another format, or changed after it was written.
    """
    import pydantic

    try:
        content = json.loads(path.read_text())
    except OSError as error:
        return refuse(
            f"there is no plan {path} ({error.strerror}): type plan=FILE, or make one with python scripts/fit.py"
        )
    except ValueError as error:
        return refuse(f"the plan {path} cannot be read ({str(error).splitlines()[0]}): {AGAIN}")
    if not isinstance(content, dict) or "run_steps" not in content:
        return refuse(f"{path} is no plan: type plan=FILE of one made by python scripts/fit.py")
    if content.get("format") != FORMAT:
        return refuse(f"the plan {path} has format {content.get('format')}, and this version reads {FORMAT}: {AGAIN}")
    try:
        plan: PlanFile = _adapter().validate_json(json.dumps(content))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return refuse(f"the plan {path} is damaged at {where} ({first['msg']}): {AGAIN}")
    if plan.digest != record_digest(content):
        return refuse(f"the plan {path} was changed after it was written: {AGAIN}")
    problem = _problem(plan)
    if problem:
        return refuse(f"the plan {path} {problem}: {AGAIN}")
    return plan


def _problem(plan: PlanFile) -> str | None:
    """What is wrong with a plan's run steps and weights; None if nothing is."""
    runs, steps = plan.run_steps, plan.setting.steps
    if not runs or runs[0] != 0 or runs != sorted(set(runs)) or runs[-1] >= steps:
        return f"has run steps that do not begin with 0 and ascend below {steps}"
    if not plan.weights or any(len(own) != len(runs) for own in plan.weights.values()):
        return "does not have weights for each of its run steps"
    if any(not 1 <= len(gap) <= number + 1 for own in plan.weights.values() for number, gap in enumerate(own)):
        return "has weights for more features than there are"
    return None


def write_plan(path: Path, plan: PlanFile) -> None:
    """Write a plan with its digest, whole or not at all."""
    sealed = dataclasses.replace(plan, digest=record_digest(dataclasses.asdict(plan)))
    write_json(path, finite(dataclasses.asdict(sealed)))


def differences(made_for: Setting, here: Setting) -> list[str]:
    """What keeps a plan from a run: other weights, steps, solver or sigmas. Empty if it goes with it.

    Args:
        made_for: the plan's setting.
        here: the run's; parts that are None are not known and not compared.
    """
    found = []
    weights = "model" if None in (made_for.weights, here.weights) else "weights"
    for key in ("pipeline", weights, "steps", "solver"):
        was, now = getattr(made_for, key), getattr(here, key)
        if None not in (was, now) and was != now:
            found.append(f"{key} {_short(was)}, here {_short(now)}")
    if made_for.steps == here.steps and _apart(made_for.sigmas, here.sigmas) > SIGMA_TOLERANCE:
        found.append("another grid of sigmas (the scheduler's shift, or its timesteps)")
    return found


def changes(made_for: Setting, here: Setting) -> list[str]:
    """What is otherwise in a run than where a plan was fitted, and does not keep it from there: size and guidance.

    Args:
        made_for: the plan's setting.
        here: the run's; parts that are None are not known and not compared.
    """
    sizes = {key: (getattr(made_for, key), getattr(here, key)) for key in ("height", "width", "frames")}
    pairs = {key: pair for key, pair in sizes.items() if None not in pair}
    pairs |= {key: (made_for.call.get(key), value) for key, value in here.call.items()}
    return [f"{key} {was}, here {now}" for key, (was, now) in pairs.items() if was != now]


def _short(value: Any) -> Any:
    return f"{value[:12]}" if isinstance(value, str) and len(value) == 64 else value


def _apart(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest difference of two grids, relative to the largest sigma."""
    if not first or not second:
        return 0.0
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) / max(map(abs, first))
