"""The structured configs: every setting with its type and default. Hydra checks types and unknown keys against them.

The comment behind a field is what `--help` prints. Where a type says `Any`, one value may be typed in the place of a
list (`seeds=3`), and `spectrum.config.compose` makes a list of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from spectrum.core.choices import Keep, Signal, Site, Space
from spectrum.core.clock import Clock

PARTS = ("samples", "metrics", "timing", "profile")
TOY_BATCH = 8
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""The dtypes that a model can be loaded in, with the bytes of one element."""
OFFLOADS = ("none", "model", "group")
"""Where weights are while they are not at work: on the device, or on the CPU by network or by block."""
BUILT = {"random": "random weights, full size", "tiny": "random weights, toy width"}
"""The values of `model.weights` for which a pipeline is built from its config, with what people call them."""


@dataclass
class ModelConfig:
    """A pipeline to load and how its authors sample it."""

    name: str = MISSING  # the model's name: that of its file
    pipeline: str = MISSING  # class of diffusers
    hub: str = MISSING  # repository of the published weights; `embedded` or `embedded/NAME` for those that ship
    weights: str = "pretrained"  # pretrained, random (full size, drawn weights), tiny (toy width), or a folder
    revision: str | None = None  # commit of the repository
    dtype: str = MISSING  # float32, bfloat16 or float16
    steps: int = MISSING  # denoising steps
    height: int = MISSING  # pixels
    width: int = MISSING  # pixels
    call: dict[str, Any] = field(default_factory=dict)  # arguments of the pipeline's call
    branches: int = MISSING  # CFG branches that are stored, 2 for classifier-free guidance
    feature: list[Any] = MISSING  # shape of one sample's feature: (image tokens, width); a list of them for several
    licence: str = MISSING  # of the weights
    size_gb: float = MISSING  # of the weights, in GB
    batch: int = 1  # samples per denoiser call unless batch= is typed
    frames: int | None = None  # frames of a video, layers of a picture in layers; null for a picture
    fps: int | None = None  # frames per second of a video
    spare: list[str] = field(default_factory=list)  # files of the repository that diffusers does not need
    variant: str | None = None  # what weight files are marked with, where the repository has no others: fp16
    safetensors: bool = True  # false where the repository has pickled weights; only their tensors are read
    parts: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # parts from other repositories: class, hub, subfolder, revision; or made from a config: class, config
    vae: Any = field(default_factory=list)  # slicing, tiling: how the VAE decodes in pieces
    calibration: dict[str, Any] | None = None  # what was fitted for this model, by method
    architecture: dict[str, Any] | None = None  # what weights=random builds, see spectrum.models.architectures
    tiny: dict[str, Any] | None = None  # the settings that weights=tiny changes


@dataclass
class MethodConfig:
    """A caching method; `forecast`, `drift` and `correct` name functions by `_target_`, with their parameters."""

    name: str = MISSING  # what tables call it
    forecast: dict[str, Any] | None = None  # the forecaster: _target_ and parameters; null never skips
    drift: dict[str, Any] | None = None  # how far the signal moved, for schedules that decide by data
    correct: dict[str, Any] | None = None  # changes a forecast before it is used
    space: Space = Space.feature  # feature or residual: what is stored
    site: Site = Site.exit  # exit, output or modules: where it is stored
    keep: Keep = Keep.features  # what is kept of them: features, bfloat16, float8, sums or host; see core/choices.py
    clock: Clock = Clock.step  # step, timestep or sigma: the time variable of the forecast
    signal: Signal = Signal.teacache  # what drift is computed from: teacache, modulated_input, front_residual, latents
    accumulate: bool = True  # sum drifts since the last run step; false: only the newest counts
    shared_decision: bool = False  # every CFG branch does what the first one decided
    batch_decision: bool = False  # a data-dependent method decides for its whole batch, not for each sample
    front_blocks: int | None = 0  # blocks that run at every step, at site=exit
    plan: dict[str, Any] | None = None  # filled in for a plan: its digest, its steps and sigmas, what differs here
    steps: int | None = None  # a control's own number of steps
    solver: str | None = None  # a control's own scheduler class of diffusers
    fallback: dict[str, Any] = field(default_factory=dict)  # the authors' values, where none was typed or fitted


@dataclass
class PromptsConfig:
    """Where the prompts come from."""

    file: str | None = None  # one prompt a line: shipped with the project, or a path
    text: Any = None  # the prompts themselves
    limit: int | None = None  # take the first ones
    sealed: bool | None = None  # true: kept for releases and refused; false: this is a release
    source: str | None = None  # what a file has to hold that does not ship here
    download: dict[str, Any] | None = None  # where `spectrum fetch` gets it: url, sha256, size_gb, licence, page


@dataclass
class ExperimentConfig:
    """A table: what it is called and what its rows are compared with."""

    name: str = MISSING  # file names of its table and figures
    title: str = MISSING  # heading
    against: str | None = None  # the method that differences are taken to
    varies: str | None = None  # the key of an ablation
    published: dict[str, Any] | None = None  # model and settings of results/published.csv, by method and runs


@dataclass
class RunConfig:
    """Everything that `run.py` reads."""

    model: ModelConfig = MISSING
    method: MethodConfig = MISSING
    schedule: dict[str, Any] = MISSING
    prompts: PromptsConfig = MISSING
    eval: dict[str, dict[str, Any]] = MISSING
    runs: int | None = None  # ask for this many block runs: the schedule's parameter is looked up
    plan: str | None = None  # the plan of method=planned: a file; null takes the one of `runs` kept for the model
    plan_force: bool = False  # apply a plan that was made for something else
    seeds: Any = field(default_factory=lambda: [0])  # each prompt is sampled once per seed
    batch: int | None = None  # samples per denoiser call; null takes the model's own. Part of a run's id
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    workers: int | None = None  # processes that share the samples of a job and are started one by one
    worker: int | None = None  # which of them this is, from 0; torchrun, accelerate launch and srun say it themselves
    offload: str = "none"  # weights that are not at work lie on the CPU: none, model (by network), group (by block)
    memory_limit_gb: float | None = None  # use at most so many GiB of the device's memory; null takes what is free
    check_memory: bool = True  # refuse before loading what would not fit; false tries it all the same
    out: str = "outputs"  # the folder for samples, pictures and records
    records: str | None = None  # a folder that also gets the record, for example results/records
    probe: int = 4  # samples whose forecasts are compared with the true features; 0 leaves that out
    timing: int = 3  # repeats of the timing pass; 0 leaves it out
    profile: bool = False  # also write where the time of a step goes, and a trace of torch's profiler
    redo: Any = field(default_factory=list)  # parts of a stored run to make again: metrics, timing, samples, profile
    plugins: Any = field(default_factory=list)  # packages outside the project whose functions configs may name
    experiment: ExperimentConfig | None = None
    logger: dict[str, Any] | None = None
    planner: dict[str, Any] | None = None  # how `spectrum fit` searches for run steps


_METHOD_DEFAULTS: dict[str, Any] = vars(MethodConfig(name=""))


def changed_settings(method: MethodConfig) -> dict[str, Any]:
    """The settings of a method that are not defaults, as plain values.

    Example:
        >>> changed_settings(MethodConfig(name="none", space=Space.residual))
        {'name': 'none', 'space': 'residual'}
    """
    own = {key: value for key, value in vars(method).items() if value != _METHOD_DEFAULTS[key]}
    return {key: str(value) if isinstance(value, str) else value for key, value in own.items()}


def plain_method(changed: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a method as plain values, from those that are not defaults."""
    defaults = {key: str(value) if isinstance(value, str) else value for key, value in _METHOD_DEFAULTS.items()}
    return {**defaults, **changed}


def method_from(changed: Mapping[str, Any]) -> MethodConfig:
    """A method's config from its settings that are not defaults, as a record holds them.

    Raises:
        TypeError, ValueError: for settings that are no method's.
    """
    kinds = {"space": Space, "site": Site, "clock": Clock, "signal": Signal, "keep": Keep}
    return MethodConfig(**{key: kinds[key](value) if key in kinds else value for key, value in changed.items()})


def register() -> None:
    """Put the schema into Hydra's ConfigStore, where `configs/config.yaml` finds it as `schema`."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=RunConfig)
