"""What goes wrong in other caching systems, as cases that run for any method on any model's toy.

Each case takes a `Pair` and raises AssertionError. `scripts/conformance.py` writes the matrix of all pairs.
"""

import contextlib
import dataclasses
import functools

import torch
from fitted import FITTED, TYPED, planned_on
from toys import dtype_of, traces

from spectrum.api import Accelerated, denoisers
from spectrum.bench.generate import sample_report
from spectrum.bench.prompts import Sample
from spectrum.bench.sampling import sample_batch
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.config.reader import choices, group_file, method_file
from spectrum.config.sampling import Sampling
from spectrum.core.errors import SpectrumError
from spectrum.core.method import Site, Space, plan_method
from spectrum.hooks.block_stand_ins import blocks_named
from spectrum.hooks.discovery import site_modules
from spectrum.models.pipelines import load_pipeline
from spectrum.models.plans import cache_bytes

STEPS = 10
PROMPTS = [Sample(i, text, 0) for i, text in enumerate(("a cat on blue", "two pears", "a drum"))]
MODELS = [name for name in choices("model") if "tiny" in group_file("model", name)]
METHODS = [name for name in choices("method") if method_file(name)[0]["forecast"]]
PLUGINS = []
"""Packages outside the project that hold the functions of a method by others: `spectrum submit` names them here."""
TRIES = 16


class Subject:
    """A model's toy and how to call it."""

    def __init__(self, name, dtype=None):
        words = [f"model={name}", "model.weights=tiny", f"model.steps={STEPS}", "batch=2", "device=cpu"]
        self.config = compose([*words, *([f"model.tiny.dtype={dtype}"] if dtype else [])])
        self.name, self.pipe = name, load_pipeline(self.config.model, torch.device("cpu"))
        if hasattr(self.pipe, "vision_num_semantic_tokens"):  # of an empty picture: 729 take most of a toy's time
            self.pipe.vision_num_semantic_tokens = 9
        self.plain = self.sample()

    def sample(self, prompts=PROMPTS[:2], **changes):
        return sample_batch(self.pipe, prompts, dataclasses.replace(Sampling.of(self.config), **changes))


@functools.cache
def subject_of(name, dtype=None):
    return Subject(name, dtype)


@functools.cache
def other_of(name):
    """A second pipeline of the same weights."""
    return Subject(name)


@functools.cache
def layouts_of(name, space=Space.feature):
    """The layout of each denoiser of a model, as the hook of a method in that space has it after a run."""
    subject = subject_of(name)
    method = method_of("fora") if space is Space.feature else method_of("fora", "method.space=residual")
    with Accelerated(subject.pipe, method) as handle:
        subject.sample()
        return [hook.layout for hook in handle.hooks]


@functools.cache
def method_of(name, *words):
    """The method of a file, with what it needs fitted for toys."""
    config = compose([f"method={name}", f"model.steps={STEPS}", *TYPED.get(name, []), *words, f"plugins={PLUGINS}"])
    return build_method(config.method, config.schedule, FITTED, plugins=config.plugins)


@functools.cache
def skipping(model, name):
    """The method with a threshold, found by bisection, that runs some steps and skips others on a model's toy."""
    if name == "planned":
        return planned_on(subject_of(model).pipe, subject_of(model).sample, method_of(name))
    if method_file(name)[0]["drift"] is None:
        return method_of(name)
    low, high = -5.0, 3.0
    for _ in range(TRIES):
        found = method_of(name, f"schedule.threshold={10 ** ((low + high) / 2)}")
        with Accelerated(subject_of(model).pipe, found) as handle:
            subject_of(model).sample()
            runs = min(len(branch["run_steps"]) for branch in handle.report().values())
        if 4 <= runs < STEPS - 1:
            return found
        low, high = (low, (low + high) / 2) if runs < 4 else ((low + high) / 2, high)
    raise AssertionError(f"no threshold of {name} both runs and skips on {model}")


class Pair:
    """A model and a method, sampled once."""

    def __init__(self, model, name):
        self.name, self.subject = name, subject_of(model)
        self.method = skipping(model, name)
        self.space = Space.feature if self.method.site is Site.output else self.method.space
        self.image, self.report = self.cached()

    def cached(self, method=None, subject=None, **kwargs):
        subject = subject or self.subject
        with Accelerated(subject.pipe, method or self.method) as handle:
            return subject.sample(**kwargs), handle.report()


def runs_of(handle):
    """The run steps of each CFG branch."""
    return [branch["run_steps"] for branch in handle.report().values()]


def same(a, b):
    return a.shape == b.shape and torch.equal(a, b)


def always_running_is_bit_exact(pair):
    """1: with a schedule that always runs the output equals the unhooked pipeline's."""
    everything = dataclasses.replace(pair.method, schedule=method_of("none").schedule)
    assert same(pair.cached(everything)[0], pair.subject.plain)


def skipped_steps_run_nothing(pair):
    """2: on a skipped step no block runs but those in front, at the modules' site no attention or MLP."""
    counts, handles = [], []

    def count(*args):
        counts[-1] += 1

    layouts = layouts_of(pair.subject.name, pair.space)
    for model, layout in zip(denoisers(pair.subject.pipe), layouts, strict=True):
        stacks = layout.stacks
        handles.append(model.register_forward_pre_hook(lambda *args: counts.append(0)))
        if pair.method.site is Site.modules:
            inner = [child for part in site_modules(model, stacks)[0].values() for child in part.children()]
        else:
            reads = pair.method.front_blocks or not pair.method.time_only  # what feeds the blocks feeds a signal too
            named = stacks if reads else (*stacks, *layout.feeders)
            inner = list(blocks_named(model, named).values())
        handles += [part.register_forward_pre_hook(count) for part in inner]
    image, report = pair.cached()
    for handle in handles:
        handle.remove()
    skipped = sum(len(branch["skipped"]) for branch in report.values())
    low = min(counts)
    assert low <= pair.method.front_blocks and counts.count(low) == skipped > 0 and max(counts) > low
    assert same(image, pair.image) and torch.isfinite(image).all() and not same(image, pair.subject.plain)


def removal_leaves_the_model_as_it_was(pair):
    """3: same modules, same forward, same output, nothing on the class."""
    before = []
    for model in denoisers(pair.subject.pipe):
        before.append((model, list(model.modules()), type(model).forward, traces(model)))
    pair.cached()
    for model, modules, forward, left in before:
        assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
        assert type(model).forward is forward and model.forward.__func__ is forward and traces(model) == left
    assert same(pair.subject.sample(), pair.subject.plain)


def two_pipelines_do_not_meet(pair):
    """4: another pipeline of the class is untouched, and one with another method is not seen."""
    other = other_of(pair.subject.name)
    with Accelerated(pair.subject.pipe, pair.method):
        assert same(other.sample(), other.plain)
        with Accelerated(other.pipe, method_of("fora")):
            beside = other.sample()
            assert same(pair.subject.sample(), pair.image)
    with Accelerated(other.pipe, method_of("fora")):
        assert same(other.sample(), beside)


def an_exception_leaves_no_state(pair):
    """5: a run broken off in the middle, then one that equals a fresh one."""
    model = denoisers(pair.subject.pipe)[0]
    calls = []

    def fail(*args):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt

    exit_module = model.get_submodule(layouts_of(pair.subject.name, pair.space)[0].exits[0].module)
    with Accelerated(pair.subject.pipe, pair.method) as handle:
        wrench = exit_module.register_forward_pre_hook(fail)
        with contextlib.suppress(KeyboardInterrupt):
            pair.subject.sample(PROMPTS[1:])
        wrench.remove()
        assert not handle.hooks[0].running
        assert same(pair.subject.sample(), pair.image)


def another_call_starts_anew(pair):
    """6: other steps, another batch, other prompts, and the first again, on one hook as on fresh ones."""
    calls = [{"steps": STEPS - 2}, {"prompts": PROMPTS}, {"prompts": PROMPTS[1:]}, {}]
    apart = [*(pair.cached(**call)[0] for call in calls[:-1]), pair.image]
    with Accelerated(pair.subject.pipe, pair.method):
        assert all(same(pair.subject.sample(**call), image) for call, image in zip(calls, apart, strict=True))


def branches_have_their_own_histories(pair):
    """7, 8: as many histories as CFG branches that come one by one, each complete; batched CFG has one."""
    model = pair.subject.config.model
    assert 1 <= len(pair.report) <= max(1, model.branches) * len(denoisers(pair.subject.pipe))
    for branch in pair.report.values():
        steps = [*branch["run_steps"], *(entry["step"] for entry in branch["skipped"])]
        assert sorted(steps) == list(range(min(steps), max(steps) + 1))


@functools.cache
def precise(name):
    """The model's toy, in float64 if float32's rounding alone moves its samples when the batch is another one (SVD)."""
    subject = subject_of(name)
    alone = torch.cat([subject.sample(prompts=PROMPTS[number : number + 1]) for number in range(2)])
    in_8_bits = torch.allclose(255 * alone, (255 * alone).round(), atol=1e-3)  # Cosmos's, which may be off by a level
    if (alone - subject.plain).abs().max() < (1.01 / 255 if in_8_bits else 1e-3):
        return subject
    exact = Subject(name)
    exact.pipe.to(torch.float64)
    return exact


def batch_items_do_not_meet(pair):
    """9: item i of a batch equals item i alone, and has the same run steps where the data decide."""
    subject = precise(pair.subject.name)
    image, whole = (pair.image, pair.report) if subject is pair.subject else pair.cached(subject=subject)
    for number in range(2):
        alone, report = pair.cached(subject=subject, prompts=PROMPTS[number : number + 1])
        torch.testing.assert_close(alone, image[number : number + 1], rtol=5e-3, atol=5e-3)
        for name, branch in sample_report(whole, number, 2).items():
            assert name not in report or branch["run_steps"] == report[name]["run_steps"]


def the_output_keeps_its_dtype(pair):
    """13: a bfloat16 model returns bfloat16 at every step."""
    subject = subject_of(pair.subject.name, "bfloat16")
    seen = []
    handles = [
        model.register_forward_hook(lambda module, args, out: seen.append(dtype_of(out[0])))
        for model in denoisers(subject.pipe)
    ]
    image, _ = pair.cached(subject=subject)
    for handle in handles:
        handle.remove()
    assert torch.isfinite(image).all() and set(seen) == {torch.bfloat16}


def the_bytes_are_known(pair):
    """17: three calls on one hook hold as much as one; at the exit no more than was predicted."""

    def held(report):
        return [branch["cache_bytes"] for branch in report.values()]

    with Accelerated(pair.subject.pipe, pair.method) as handle:
        for _ in range(3):
            pair.subject.sample()
            assert held(handle.report()) == held(pair.report)
    predicted = cache_bytes(pair.subject.config, plan_method(pair.method, STEPS), 2)
    assert sum(held(pair.report)) > 0 and (pair.method.site is not Site.exit or sum(held(pair.report)) <= predicted)


CASES = {
    "1": always_running_is_bit_exact,
    "2": skipped_steps_run_nothing,
    "3": removal_leaves_the_model_as_it_was,
    "4": two_pipelines_do_not_meet,
    "5": an_exception_leaves_no_state,
    "6": another_call_starts_anew,
    "7, 8": branches_have_their_own_histories,
    "9": batch_items_do_not_meet,
    "13": the_output_keeps_its_dtype,
    "17": the_bytes_are_known,
}


def outcomes(model, name, wanted=tuple(CASES)):
    """`passed`, `failed: ...`, or `refused: ...` where the method cannot serve the model."""
    try:
        pair = Pair(model, name)
    except SpectrumError as error:
        return dict.fromkeys(wanted, f"refused: {error}")
    except AssertionError as error:
        return dict.fromkeys(wanted, f"failed: {error}")
    found = {}
    for case, check in ((case, CASES[case]) for case in wanted):
        try:
            check(pair)
            found[case] = "passed"
        except (AssertionError, Exception) as error:
            found[case] = f"failed: {type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}"
    return found
