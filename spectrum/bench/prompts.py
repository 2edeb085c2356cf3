"""Reads prompts, checks them and numbers them. A sample is named by its prompt's index, never by its text."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectrum.config.prompt_lists import PROMPTS, shipped_prompts
from spectrum.config.schema import PromptsConfig
from spectrum.core.errors import check_number, refuse
from spectrum.models.sources import COMMAND


@dataclass(frozen=True)
class Sample:
    """One picture or video to make.

    Attributes:
        index: the prompt's number.
        prompt: the prompt.
        seed: the seed that was asked for.

    Example:
        >>> Sample(3, "a cat", 0).file
        '00003-s0.png'
    """

    index: int
    prompt: str
    seed: int

    @property
    def file(self) -> str:
        """Its file name."""
        return f"{self.index:05d}-s{self.seed}.png"

    @property
    def noise_seed(self) -> int:
        """Seed of its own noise generator.

        It depends on prompt index and seed alone, so that neither batching, sharding nor resuming changes the noise.
        """
        return int(np.random.SeedSequence([self.seed, self.index]).generate_state(1)[0])


def read_prompts(config: PromptsConfig) -> list[str]:
    """The prompts of a config.

    Raises:
        SpectrumError: for an unreadable file, no prompts at all, an empty one, and one with a NUL or a byte order mark;
            for prompts of the sealed list, unless `prompts.sealed=false` was typed.
    """
    if config.text is not None and config.file is not None:
        refuse("give prompts.file or prompts.text, not both")
    lines = [str(t) for t in config.text] if config.text is not None else _lines(config)
    if config.limit is not None:
        check_number("prompts.limit", config.limit, low=1, integer=True)
        lines = lines[: config.limit]
    if not lines:
        refuse(
            "there are no prompts: type prompts=heldout, prompts.file=FILE, or prompts=inline prompts.text=['a cat']"
        )
    for number, line in enumerate(lines):
        if not line.strip():
            refuse(f"prompt {number} is empty: write something there, or take it out")
        if "\0" in line:
            refuse(f"prompt {number} has a NUL character in it: take it out")
        if "\ufeff" in line:
            refuse(f"prompt {number} has a byte order mark (U+FEFF) in it: take it out")
    if config.sealed or (config.sealed is None and shared_prompts(lines, "sealed")):
        refuse("these prompts are kept for releases: type prompts=heldout, or prompts.sealed=false if this is one")
    return lines


def shared_prompts(prompts: Sequence[str], name: str) -> list[str]:
    """Those of some prompts that a shipped list has too, in whatever case and with whatever spaces they are written.

    Args:
        prompts: any prompts.
        name: of the list.

    Example:
        >>> shared_prompts(["a cat on the moon", " A snowman on  white"], "calibration")
        [' A snowman on  white']
    """
    known = {_plain(prompt) for prompt in shipped_prompts(name)}
    return [prompt for prompt in prompts if _plain(prompt) in known]


def _plain(prompt: str) -> str:
    return " ".join(prompt.split()).casefold()


def prompts_folder() -> Path:
    """The folder for prompt lists that do not ship here: `spectrum fetch` writes to it, and one's own lists go there.

    It is `prompts` in the folder that the environment's `SPECTRUM_HOME` names, by default `~/.cache/spectrum`.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.environ.get("SPECTRUM_HOME") or cache / "spectrum").expanduser() / "prompts"


def prompt_file(file: str) -> Path:
    """The path of a prompt file: of a list that ships here, as it was typed, or in `prompts_folder()`."""
    places = PROMPTS / file, Path(file), prompts_folder() / file
    return next((path for path in places if path.is_file()), Path(file))


def _lines(config: PromptsConfig) -> list[str]:
    file = config.file
    if file is None:
        return refuse("prompts.file is not set: type prompts.file=FILE")
    path = prompt_file(file)
    try:
        return path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    except FileNotFoundError:
        if path.is_absolute():
            refuse(f"there is no prompt file {file}: write one prompt a line to it, or type prompts.file=FILE")
        if config.source:
            fetch = f"type {COMMAND} {path.stem}, or " if config.download else ""
            refuse(
                f"there is no prompt file {file}: {fetch}write {config.source} to {prompts_folder() / file}, or type "
                "prompts.file=FILE"
            )
        shipped = ", ".join(sorted(p.stem for p in PROMPTS.glob("*.txt")))
        return refuse(f"there is no prompt file {file}; shipped with the project: {shipped} (type prompts=NAME)")
    except (OSError, UnicodeDecodeError) as error:
        return refuse(f"the prompt file {file} cannot be read: {error}")


def numbered_samples(prompts: list[str], seeds: list[int]) -> list[Sample]:
    """Every prompt with every seed, prompts outermost."""
    return [Sample(i, prompt, seed) for i, prompt in enumerate(prompts) for seed in seeds]


def check_length(pipe: Any, prompts: list[str], limit: int) -> None:
    """Refuse a prompt that the pipeline would cut.

    It is counted by the pipeline's last tokenizer: that of its long text encoder. CLIP, which reads 77 tokens, and
    ByT5, which only reads quoted text, count where there is no other.

    Args:
        pipe: a diffusers pipeline.
        prompts: the prompts.
        limit: the most tokens that it reads.

    Raises:
        SpectrumError: for the first prompt that is too long.
    """
    names = ("tokenizer_4", "tokenizer_3", "tokenizer_2", "tokenizer")
    found = [t for name in names if (t := getattr(pipe, name, None)) is not None]
    if not found:
        return
    tokenizer = next((t for t in found if not type(t).__name__.startswith(("CLIP", "ByT5"))), found[0])
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    for number, prompt in enumerate(prompts):
        tokens = len(tokenizer(prompt).input_ids)
        if tokens > limit:
            refuse(f"prompt {number} has {tokens} tokens and the model reads {limit}: shorten it")
