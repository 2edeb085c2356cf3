"""What a config asks for, worked out before anything is loaded: its method, checked by planning it, and its label.

Planning a method of time alone needs no torch.
"""

from spectrum.config.labels import label_of
from spectrum.config.methods import build_method, filled, with_runs
from spectrum.config.reader import group_file, method_file
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse
from spectrum.core.method import Method
from spectrum.models.fitted import fits_of
from spectrum.models.kept_plans import with_plan
from spectrum.models.plans import plan_of


def resolve(config: RunConfig) -> tuple[RunConfig, Method]:
    """The method of a config, checked by planning it.

    Args:
        config: a composed config.

    Returns:
        (the config with `runs` met and what was fitted for the model filled in, its method).

    Raises:
        SpectrumError: for every setting that cannot be run.
    """
    fits = fits_of(config.model)
    config = filled(with_runs(with_plan(config), fits), fits)
    model = config.model
    typed = "" if model.steps == group_file("model", model.name)["steps"] else f" model.steps={model.steps}"
    method = build_method(config.method, config.schedule, fits, f"{model.name}{typed}", config.plugins)
    steps = Sampling.of(config).steps
    if steps > model.steps:
        refuse(f"method.steps={steps} must be at most model.steps={model.steps}: type method.steps= or runs=")
    plan_of(config, method)
    return config, method


def label(config: RunConfig) -> str:
    """The method's name in tables, with its schedule's parameter and what differs from its own files."""
    return label_of(config.method, config.schedule, method_file(config.method.name))
