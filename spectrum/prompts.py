"""Prompts: read, checked, and numbered. A sample is named by its prompt's index, never by its text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectrum.config import PromptsConfig
from spectrum.errors import check_number, refuse

ASSETS = Path(__file__).resolve().parent / "assets"


@dataclass(frozen=True)
class Sample:
    """One picture to make: prompt number, prompt, and the seed asked for."""

    index: int
    prompt: str
    seed: int

    @property
    def file(self) -> str:
        """Its file name."""
        return f"{self.index:05d}-s{self.seed}.png"

    @property
    def noise_seed(self) -> int:
        """Seed of its own noise generator: a function of prompt index and seed alone, so that neither batching,
        sharding nor resuming changes the noise.
        """
        return int(np.random.SeedSequence([self.seed, self.index]).generate_state(1)[0])


def read_prompts(config: PromptsConfig) -> list[str]:
    """The prompts of a config. Raises `SpectrumError` for a missing file, an empty prompt, or none at all."""
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
    return lines


def _lines(config: PromptsConfig) -> list[str]:
    file = config.file
    if file is None:
        return refuse("prompts.file is not set: type prompts.file=FILE")
    bundled = ASSETS / "prompts" / file
    path = bundled if bundled.is_file() else Path(file)
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except FileNotFoundError:
        if config.source:
            refuse(f"there is no prompt file {file}: write {config.source} to it, or type prompts.file=FILE")
        shipped = ", ".join(sorted(p.stem for p in bundled.parent.glob("*.txt")))
        return refuse(f"there is no prompt file {file}; shipped with the project: {shipped} (type prompts=NAME)")
    except (OSError, UnicodeDecodeError) as error:
        return refuse(f"the prompt file {file} cannot be read: {error}")


def samples(prompts: list[str], seeds: list[int]) -> list[Sample]:
    """Every prompt with every seed, prompts outermost."""
    return [Sample(i, prompt, seed) for i, prompt in enumerate(prompts) for seed in seeds]


def check_length(pipe: Any, prompts: list[str], limit: int) -> None:
    """Refuse a prompt that the pipeline would cut: longer than `limit` tokens of its long text encoder.

    That is its last; CLIP, which reads 77 tokens, and ByT5, which reads what is quoted, only where there is no other. A
    processor is taken for the tokenizer in it.
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
