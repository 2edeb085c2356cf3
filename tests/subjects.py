"""The models' toys that cases and tests of families sample."""

import dataclasses
import functools

import torch

from spectrum.bench.prompts import Sample
from spectrum.bench.sampling import sample_batch
from spectrum.config.compose import compose
from spectrum.config.reader import group_file
from spectrum.config.sampling import Sampling, takes_one
from spectrum.models.pipelines import load_pipeline

STEPS = 10
PROMPTS = [Sample(i, text, 0) for i, text in enumerate(("a cat on blue", "two pears", "a drum"))]


class Subject:
    """A model's toy and how to call it: for two prompts, or for one where the pipeline takes no more."""

    def __init__(self, name, dtype=None):
        self.batch = 1 if takes_one((group_file("model", name).get("architecture") or {}).get("embeds")) else 2
        words = [f"model={name}", "model.weights=tiny", f"model.steps={STEPS}", f"batch={self.batch}", "device=cpu"]
        self.config = compose([*words, *([f"model.tiny.dtype={dtype}"] if dtype else [])])
        self.name, self.pipe = name, load_pipeline(self.config.model, torch.device("cpu"))
        if hasattr(self.pipe, "vision_num_semantic_tokens"):  # of an empty picture: 729 take most of a toy's time
            self.pipe.vision_num_semantic_tokens = 9
        self.plain = self.sample()

    def sample(self, prompts=None, **changes):
        prompts = prompts or PROMPTS[: self.batch]
        return sample_batch(self.pipe, prompts, dataclasses.replace(Sampling.of(self.config), **changes))


@functools.cache
def subject_of(name, dtype=None):
    return Subject(name, dtype)


@functools.cache
def other_of(name):
    """A second pipeline of the same weights."""
    return Subject(name)
