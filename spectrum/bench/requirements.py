"""What a run needs that is not on this machine, and the names that `spectrum fetch` takes."""

from collections.abc import Mapping

from eval.metrics.files import ALSO_CALLED, NAMES, metric_item, needed
from spectrum.bench.prompts import prompt_file, prompts_folder
from spectrum.config.compose import compose
from spectrum.config.reader import choices, group_file
from spectrum.config.schema import PromptsConfig, RunConfig
from spectrum.core.errors import refuse
from spectrum.models.sources import COMMAND, Item, WebFile, model_item, shown


def names() -> dict[str, tuple[str, ...]]:
    """The names of models, prompt lists and files of metrics, by kind, those that ship with the project too."""
    return {"models": choices("model"), "prompt lists": choices("prompts"), "files of metrics": NAMES}


def item_of(name: str) -> Item | None:
    """What `spectrum fetch NAME` stands for.

    Args:
        name: a name that `names()` has, or a metric that reads the files of another one.

    Returns:
        The item; None if it ships with the project.
    """
    name = ALSO_CALLED.get(name, name)
    if name in NAMES:
        return metric_item(name)
    if name in choices("model"):
        return model_item(compose([f"model={name}"]).model)
    return prompts_item(PromptsConfig(**group_file("prompts", name)))


def prompts_item(config: PromptsConfig) -> Item | None:
    """The prompt list of a config; None if it does not name a list that can be fetched."""
    for name in choices("prompts"):
        own = group_file("prompts", name)
        about = own.get("download")
        if about and config.text is None and config.file == own["file"]:
            source = WebFile(target=prompts_folder() / own["file"], prompts=True, **about)
            place = f"put your own list, one prompt a line, at {shown(source.target)}, or type prompts.file=FILE"
            return Item(name, f"the prompt list {name}", (source,), place)
    return None


def missing(config: RunConfig) -> list[Item]:
    """What a run's config needs that is not on this machine: weights, prompt list, files of metrics."""
    found = [model_item(config.model), prompts_item(config.prompts)]
    if found[1] is not None and prompt_file(str(config.prompts.file)).is_file():
        found[1] = None
    read = (needed(name, parameters) for name, parameters in config.eval.items() if isinstance(parameters, Mapping))
    found += [metric_item(name) for name in dict.fromkeys(read) if name is not None]
    return [item for item in found if item is not None and not item.here]


def missing_line(config: RunConfig) -> str | None:
    """The one line that names all that is missing, each with its command and the place of a file of one's own.

    Returns:
        The line; None if nothing is missing that the run cannot do without. Metrics are left out without their files,
        so that these are named only beside weights or prompts.
    """
    items = missing(config)
    if not {item.name for item in items} - set(NAMES):
        return None
    named = " ".join(item.name for item in items)
    short = [item.what for item in items if item.name not in NAMES]
    metrics = ", ".join(item.name for item in items if item.name in NAMES)
    short += [f"files of the metrics {metrics}"] if metrics else []
    each = "; ".join(item.missing for item in items)
    everything = f"type {COMMAND} {named} (or spectrum fetch with these names)"
    return f"not on this machine: {', '.join(short)}; {everything} for all of it; {each}"


def check_prompts(config: RunConfig) -> None:
    """Refuse a config whose prompt list is missing, with all else that is missing too.

    Weights are looked for when they are loaded: a run that is complete needs none.

    Raises:
        SpectrumError: with `missing_line`.
    """
    item = prompts_item(config.prompts)
    if item is not None and not prompt_file(str(config.prompts.file)).is_file():
        refuse(missing_line(config) or item.missing)
