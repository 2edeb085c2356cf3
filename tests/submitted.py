"""A user's package with methods, their files, and records as a submission has them."""

import dataclasses

from eval.tables import experiments
from eval.tables.experiments import load_experiment
from spectrum.bench.submission import Rules
from spectrum.config import reader

STEPS, RUNS = 7, 5
WORDS = ("seeds=[0,1]", "batch=1", "eval=default", "prompts.limit=3", f"model.steps={STEPS}")
PACKAGE = """
def damped(times, target, span, *, damping=0.5):
    weights = [0.0] * len(times)
    weights[-1] = 1.0
    if len(times) > 1:
        slope = damping * (target - times[-1]) / (times[-1] - times[-2])
        weights[-2] -= slope
        weights[-1] += slope
    return weights

def listed(times, target, span, *, factors):
    return damped(times, target, span, damping=factors[0])

CALLS = []

def counting(times, target, span):
    CALLS.append(target)
    return [0.0] * (len(times) - 1) + [1.0 + len(CALLS) / 100]
"""
FILE = """# @package _global_
# A straight line, damped.
defaults:
  - override /schedule: fixed_interval

method:
  name: {name}
  forecast:
    _target_: users_method.{function}
    _partial_: true
    {more}
"""


def forget():
    """What the reader of configs keeps of the files that it read."""
    cached = (reader.group_file, reader.group_files, reader.method_file, reader.method_files, experiments._composed)
    for function in cached:
        function.cache_clear()


def cleaned(record):
    """The record as if its code were committed and the machine idle, which it is not while this is developed."""
    git = {"commit": "0" * 40, "dirty": False}
    if record.timing is None:
        return dataclasses.replace(record, git=git)
    where = dataclasses.replace(record.timing.conditions, git=git, forced=False, load=[0.1, 1.0])
    return dataclasses.replace(record, git=git, timing=dataclasses.replace(record.timing, conditions=where))


def rules(**changes):
    data = {**load_experiment("tiny_table").data, "steps": STEPS, "limit": 3, "seeds": [0, 1]}
    return Rules(**{"words": WORDS, "data": data, "budgets": (RUNS,), **changes})


def shifted(records, gap):
    """The two methods' PSNRs as 30 dB with hardly any spread, the second `gap` or next to nothing below."""
    found = []
    for record in records:
        low = 30.0 - (gap or 0.001) if record.name == "mine" else 30.0
        small = [0.01, 0.03, -0.02, -0.04, 0.05, -0.01] if record.name == "mine" else [0.0] * 6
        values = [low + one for one in small]
        entry = dataclasses.replace(record.metrics["psnr"], values=values, mean=sum(values) / 6)
        found.append(dataclasses.replace(record, metrics={**record.metrics, "psnr": entry}))
    return found
