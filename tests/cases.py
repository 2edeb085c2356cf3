"""What goes wrong in other caching systems, as cases that run for any method on any model's toy.

Each case takes a `Pair` and raises AssertionError. `scripts/conformance.py` writes the matrix of all pairs.
"""

import contextlib
import dataclasses
import functools

import torch
from fitted import FITTED, TYPED, planned_on
from subjects import PROMPTS, STEPS, Subject, other_of, subject_of
from toys import dtype_of, traces

from spectrum.api import Accelerated, denoisers
from spectrum.bench.generate import sample_report
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.config.reader import group_files, method_files
from spectrum.core.errors import SpectrumError
from spectrum.core.method import Site, Space, plan_method
from spectrum.hooks.block_stand_ins import blocks_named
from spectrum.hooks.discovery import site_modules
from spectrum.models.plans import cache_bytes
from spectrum.records.sections import held_bytes, sections

MODELS = [name for name, own in group_files("model").items() if "tiny" in own]
METHODS = [name for name, (own, _) in method_files().items() if own["forecast"]]
PLUGINS = []
"""Packages outside the project that hold the functions of a method by others: `spectrum submit` names them here."""
TRIES = 16
BEHIND_FRONT = {"wan_animate": 1}
"""Modules of other lists that run with the first block: a face adapter, before the next block is reached."""


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
    if method_files()[name][0]["drift"] is None:
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
        self.image, self.report = self.cached()

    def cached(self, method=None, subject=None, **kwargs):
        subject = subject or self.subject
        with Accelerated(subject.pipe, method or self.method) as handle:
            return subject.sample(**kwargs), handle.report()

    def layouts(self):
        """Of each denoiser; at the output what enters and leaves the blocks need not be of one shape."""
        return layouts_of(self.subject.name, Space.feature if self.method.site is Site.output else self.method.space)


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
    front = pair.method.front_blocks and pair.method.front_blocks + BEHIND_FRONT.get(pair.subject.name, 0)
    counts, handles = [], []

    def count(*args):
        counts[-1] += 1

    layouts = pair.layouts()
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
    assert low <= front and counts.count(low) == skipped > 0 and max(counts) > low
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

    exit_module = model.get_submodule(pair.layouts()[0].exits[0].module)
    with Accelerated(pair.subject.pipe, pair.method) as handle:
        wrench = exit_module.register_forward_pre_hook(fail)
        with contextlib.suppress(KeyboardInterrupt):
            pair.subject.sample(PROMPTS[1 : 1 + pair.subject.batch])
        wrench.remove()
        assert not handle.hooks[0].running
        assert same(pair.subject.sample(), pair.image)


def another_call_starts_anew(pair):
    """6: other steps, another batch, other prompts, and the first again, on one hook as on fresh ones."""
    lists = [PROMPTS, PROMPTS[1:]] if pair.subject.batch > 1 else [PROMPTS[1:2], PROMPTS[2:]]
    calls = [{"steps": STEPS - 2}, *({"prompts": prompts} for prompts in lists), {}]
    apart = [*(pair.cached(**call)[0] for call in calls[:-1]), pair.image]
    with Accelerated(pair.subject.pipe, pair.method):
        assert all(same(pair.subject.sample(**call), image) for call, image in zip(calls, apart, strict=True))


def branches_have_their_own_histories(pair):
    """7, 8: as many histories as CFG branches that come one by one, each complete; batched CFG has one."""
    most = pair.subject.config.model.branches * len(denoisers(pair.subject.pipe))
    assert all(1 <= len(section) <= most for section in sections(pair.report))
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


def refused_batch(pair):
    """Whether a batch is refused with what to type."""
    try:
        pair.cached(prompts=PROMPTS)
    except SpectrumError as error:
        return "type batch=1" in str(error)
    return False


def batch_items_do_not_meet(pair):
    """9: item i of a batch equals item i alone, also in its run steps where the data decide; or a batch is refused."""
    if pair.subject.batch == 1:
        assert refused_batch(pair)
        return
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
    predicted = cache_bytes(pair.subject.config, plan_method(pair.method, STEPS), pair.subject.batch)
    assert held_bytes(pair.report) > 0 and (pair.method.site is not Site.exit or held_bytes(pair.report) <= predicted)


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
