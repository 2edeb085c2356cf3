"""What `spectrum fetch` can download, where each file goes, and whether it is on this machine. Downloads nothing."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrum.config.schema import ModelConfig

COMMAND = "python scripts/fetch.py"
"""How messages tell people to fetch; `spectrum fetch` does the same."""
EMBEDDED_HUB = "embedded"
"""What `model.hub` says of weights that ship with the project; behind a slash their folder, unless it is `tiny`."""
CLASSES_HUB = f"{EMBEDDED_HUB}/tiny_dit"
"""The embedded model whose prompts are classes."""


@dataclass(frozen=True)
class HubFiles:
    """Files of a repository of the Hugging Face hub. They go into the hub's own cache.

    Attributes:
        hub: the repository.
        revision: its commit; None takes the newest one.
        size_gb: what is downloaded, in GB.
        licence: of the files.
        allow: the files to take; empty for all but `spare`.
        spare: patterns of files that nothing here reads.
        elsewhere: folders that `model_index.json` names and other repositories have.
        folders: the folders to take; empty for all.
    """

    hub: str
    revision: str | None
    size_gb: float
    licence: str
    allow: tuple[str, ...] = ()
    spare: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """The page that has the licence."""
        return f"https://huggingface.co/{self.hub}"

    @property
    def target(self) -> Path:
        """The folder of the hub's cache that the repository goes into."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f"models--{self.hub.replace('/', '--')}"

    @property
    def here(self) -> bool:
        """Whether all files are on this machine, as far as the repository's own lists of files tell."""
        if self.allow:
            return all(cached_file(self.hub, name, self.revision) for name in self.allow)
        if self.folders:
            names = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
            files = [[cached_file(self.hub, f"{own}/{name}", self.revision) for name in names] for own in self.folders]
            return all(any(file and _has_weights(file.parent) for file in own) for own in files)
        index = cached_file(self.hub, "model_index.json", self.revision)
        if index is None:
            config = cached_file(self.hub, "config.json", self.revision)
            return config is not None and _has_weights(config.parent)
        try:
            named = json.loads(index.read_text()).items()
        except ValueError:
            return False
        parts = [name for name, value in named if isinstance(value, list) and value and value[0]]
        return all(_has_weights(index.parent / name) for name in parts if name not in self.elsewhere)


@dataclass(frozen=True)
class WebFile:
    """A single file with an address of its own.

    Attributes:
        url: where it is downloaded from.
        target: where it goes.
        size_gb: in GB.
        licence: of the file.
        page: the page that has the licence.
        sha256: its digest in hex, or the first digits where only those are published; empty if none is known.
        prompts: whether it is a list of prompts, whose blank lines are left out when it is put in its place.
    """

    url: str
    target: Path
    size_gb: float
    licence: str
    page: str
    sha256: str = ""
    prompts: bool = False

    @property
    def here(self) -> bool:
        """Whether the file is in its place."""
        return self.target.is_file()


Source = HubFiles | WebFile


@dataclass(frozen=True)
class Item:
    """What one name of `spectrum fetch NAME` stands for.

    Attributes:
        name: the name.
        what: what it is: `the weights of black-forest-labs/FLUX.1-dev`.
        sources: the files that it consists of.
        own: what to type or where to put files of one's own instead.
    """

    name: str
    what: str
    sources: tuple[Source, ...]
    own: str

    @property
    def here(self) -> bool:
        """Whether everything is on this machine."""
        return all(source.here for source in self.sources)

    @property
    def size_gb(self) -> float:
        """The size of all its files in GB."""
        return sum(source.size_gb for source in self.sources)

    @property
    def how(self) -> str:
        """The command that fetches it, and what to do with files of one's own."""
        return f"type {COMMAND} {self.name}, or {self.own}"

    @property
    def missing(self) -> str:
        """Its name and size, the command that fetches it, and where a file of one's own goes.

        For what may be gated, weights of a model, also the licence, its page, and how to log in.
        """
        gated = [s for s in self.sources if isinstance(s, HubFiles) and not s.allow]
        accept = " and ".join(f"the {source.licence} at {source.page}" for source in gated)
        login = f"; accept {accept}, and log in with 'hf auth login'" if gated else ""
        return f"{self.name} ({size_text(self.size_gb)}{login}): {self.how}"


def size_text(size_gb: float) -> str:
    """A size for people.

    Example:
        >>> size_text(34), size_text(0.0956), size_text(0.000013)
        ('34 GB', '95.6 MB', '13 kB')
    """
    for unit, factor in (("GB", 1), ("MB", 1e3)):
        if size_gb * factor >= 1:
            return f"{size_gb * factor:.3g} {unit}"
    return f"{size_gb * 1e6:.3g} kB"


def model_item(model: ModelConfig) -> Item | None:
    """The published weights of a model; None if its weights ship with the project, are drawn, or lie in a folder."""
    if model.weights != "pretrained" or model.hub.split("/")[0] == EMBEDDED_HUB or Path(model.hub).is_dir():
        return None
    own = {"spare": tuple(model.spare), "elsewhere": tuple(model.parts)}
    sources = [HubFiles(model.hub, model.revision, model.size_gb, model.licence, **own)]
    others: dict[str, list[dict[str, Any]]] = {}
    for part in (part for part in model.parts.values() if "hub" in part):
        others.setdefault(part["hub"], []).append(part)
    for hub, parts in others.items():
        part, folders = parts[0], tuple(own["subfolder"] for own in parts if "subfolder" in own)
        size, licence = part.get("size_gb", 0), part.get("licence", model.licence)
        more = {"spare": tuple(part.get("spare", ())), "folders": folders}
        sources.append(HubFiles(hub, part.get("revision"), size, licence, **more))
    what = f"the weights of {' and '.join(source.hub for source in sources)}"
    own = "model.weights=FOLDER for your own diffusers folder, or model.weights=random for the architecture alone"
    return Item(model.name, what, tuple(sources), own)


def cached_file(hub: str, file: str, revision: str | None = None) -> Path | None:
    """The path of a repository's file in the hub's cache on this machine; None if it is not there."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(hub, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def shown(path: Path) -> str:
    """A path for people, with `~` for the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def _has_weights(folder: Path) -> bool:
    """Whether a component's folder is there, and if it is a network's, one whole set of weights in it."""
    if not (folder / "config.json").is_file():
        return folder.is_dir() and any(folder.iterdir())
    files = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    if any("-of-" not in path.name for path in files):
        return True
    return any(_all_shards(index) for index in folder.glob("*.index*.json"))


def _all_shards(index: Path) -> bool:
    try:
        shards = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(shards) and all((index.parent / name).is_file() for name in shards)
