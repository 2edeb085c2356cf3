"""Timing against a clock that only the blocks advance: by one second for each block that runs."""

import dataclasses
import os
from types import SimpleNamespace

import pytest
from cases import STEPS, method_of, subject_of

from eval.timing import agree, ratios, summary
from spectrum.bench import machine, timing
from spectrum.bench.generate import runs_of_samples
from spectrum.bench.prompts import numbered_samples
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.core.errors import SpectrumError
from spectrum.models.layouts import registered_layout
from spectrum.records.timing import TimedRound, round_nfe

BLOCKS = 5
HEAD = 0.25
"""Seconds of the denoiser's head, which runs at every step."""
FULL = STEPS * (BLOCKS + HEAD)
RUNS = 7
CACHED = RUNS * BLOCKS + STEPS * HEAD
SAMPLES = numbered_samples(["a red cube", "a blue ball", "a green cone"], [0, 1])


class Clock:
    """Seconds that blocks, the head and the decoder take; `slow` multiplies what comes next."""

    def __init__(self):
        self.now, self.slow, self.batches = 100.0, 1.0, []

    def hook(self, seconds):
        def advance(*args):
            self.now += seconds * self.slow

        return advance


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: found.now)
    return found


@pytest.fixture
def subject(clock, monkeypatch):
    """FLUX's toy of two and three blocks, on the fake clock."""
    found = subject_of("flux")
    model = found.pipe.transformer
    blocks = [block for name in registered_layout(model).with_stacks(model).stacks for block in getattr(model, name)]
    handles = [block.register_forward_pre_hook(clock.hook(1.0)) for block in blocks]
    handles.append(model.proj_out.register_forward_pre_hook(clock.hook(HEAD)))
    handles.append(found.pipe.vae.decoder.register_forward_pre_hook(clock.hook(7.0)))
    yield found
    for handle in handles:
        handle.remove()


@pytest.fixture
def sides(subject):
    """The uncached run, and Spectrum with 7 runs of the blocks."""
    sampling = Sampling.of(subject.config)
    return timing.Side(method_of("none"), sampling), timing.Side(method_of("spectrum"), sampling)


def test_seconds_are_those_of_the_denoiser_and_of_the_whole_call(subject, sides):
    seconds, report = timing.time_call(subject.pipe, sides[1], SAMPLES[:2])
    assert seconds.pop("cpu") > 0 and seconds == {"denoise": CACHED, "total": CACHED + 7.0}
    assert all(len(branch["run_steps"]) == RUNS for branch in report.values())


def test_methods_are_timed_in_turn_with_the_uncached_run_after_a_warm_up(subject, sides, monkeypatch):
    none, cached = sides
    real, order, told = timing.time_call, [], []

    def noted(pipe, side, batch):
        order.append((side.method.name, [sample.file for sample in batch]))
        return real(pipe, side, batch)

    monkeypatch.setattr(timing, "time_call", noted)
    batches = [SAMPLES[:2], SAMPLES[2:4], SAMPLES[4:]]
    found = timing.timed_rounds(subject.pipe, none, [cached, none], batches, told.append)
    files = [[sample.file for sample in batch] for batch in batches]
    turns = ["none", "spectrum", "none", "none", "none"]
    assert order == [(name, files[0]) for name in ("none", "spectrum", "none")] + [
        (name, batch) for batch in files[1:] for name in turns
    ]
    assert sum(told) == timing.sample_steps(none, [cached, none], batches) == 2 * STEPS * len(order)
    assert [[timed.samples for timed in rounds] for rounds in found] == [files[1:], files[1:]]


def test_a_slow_warm_up_leaves_no_trace(subject, sides, clock, monkeypatch):
    real, calls = timing.time_call, []

    def slow_at_first(*args):
        calls.append(None)
        clock.slow = 50.0 if len(calls) <= 2 else 1.0
        return real(*args)

    monkeypatch.setattr(timing, "time_call", slow_at_first)
    ((one, two),) = timing.timed_rounds(subject.pipe, sides[0], sides[1:], [SAMPLES[:1]] * 3)
    for timed in (one, two):
        assert timed.before == timed.after == {"denoise": FULL, "total": FULL + 7}
        assert timed.candidate == {"denoise": CACHED, "total": CACHED + 7}


def test_a_round_is_the_mean_of_before_and_after_over_the_method(subject, sides, clock, monkeypatch):
    """The machine gets slower from call to call: 1, 2 .. 5 times, so the mean of before and after fits the method."""
    real, factors = timing.time_call, iter([1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0])

    def slower(*args):
        clock.slow = next(factors)
        return real(*args)

    monkeypatch.setattr(timing, "time_call", slower)
    (one,), (two,) = timing.timed_rounds(subject.pipe, sides[0], sides[1:] * 2, [SAMPLES[:2], SAMPLES[2:4]])
    assert (one.before["denoise"], one.candidate["denoise"], one.after["denoise"]) == (FULL, 2 * CACHED, 3 * FULL)
    assert (two.before["denoise"], two.candidate["denoise"], two.after["denoise"]) == (3 * FULL, 4 * CACHED, 5 * FULL)
    assert ratios([one, two]) == pytest.approx([FULL / CACHED] * 2)


def test_a_timing_holds_the_run_mask_of_its_own_calls(subject, sides):
    none, cached = sides
    few = dataclasses.replace(cached, sampling=dataclasses.replace(cached.sampling, steps=STEPS - 2))
    rounds, fewer = timing.timed_rounds(subject.pipe, none, [cached, few], [SAMPLES[:2], SAMPLES[2:4]])
    where = machine.conditions(0.25)
    found = timing.timing_of("spectrum-1", rounds, {"cpu": "x"}, where, timing.process_id(where))
    assert found.nfe == RUNS and found.rounds[0].nfe == RUNS and found.batch == 2
    assert len(found.rounds[0].runs) == 2 and found.rounds[0].runs[0] != fewer[0].runs[0]
    for runs, calls in zip(found.rounds[0].runs, found.rounds[0].calls, strict=True):
        assert [len(steps) for steps in runs.values()] == [RUNS] and list(calls.values()) == [STEPS]
    assert list(fewer[0].calls[0].values()) == [STEPS - 2]
    assert found.speedup == pytest.approx(FULL / CACHED)
    assert found.speedup_end_to_end == pytest.approx((FULL + 7) / (CACHED + 7))
    assert found.seconds_per_sample["candidate"] == {"denoise": CACHED / 2, "total": (CACHED + 7) / 2}
    assert found.seconds_per_sample["baseline"] == {"denoise": FULL / 2, "total": (FULL + 7) / 2}


def test_each_sample_of_a_timed_call_has_its_own_runs():
    def did(runs):
        return {"run_steps": runs, "skipped": [{}] * (6 - len(runs))}

    report = {"cond": {"samples": [did([0, 1]), did([0, 1, 4])]}, "uncond": {"samples": [did([0])]}}
    entries = runs_of_samples(report, 2)
    assert [entry["runs"] for entry in entries] == [{"cond": [0, 1], "uncond": [0]}, {"cond": [0, 1, 4], "uncond": [0]}]
    runs, calls = ([entry[key] for entry in entries] for key in ("runs", "calls"))
    assert calls == [{"cond": 6, "uncond": 6}] * 2 and round_nfe(runs, calls) == (1.5 + 2.0) / 2


def test_batches_are_those_of_the_samples_and_spread_over_them():
    samples = numbered_samples(["a"] * 10, [0, 1, 2])
    numbers = [[samples.index(sample) for sample in batch] for batch in timing.batches_of(samples, 1, 9)]
    assert numbers == [[0], [3], [6], [9], [12], [15], [18], [21], [24], [27]]
    assert {number % 3 for (number,) in numbers} == {0}
    few = [[sample.index for sample in batch] for batch in timing.batches_of(samples[:7], 3, 3)]
    assert few == [[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]]


def test_a_control_is_timed_with_its_own_solver(subject, sides):
    unknown = dataclasses.replace(sides[0].sampling, solver="NoSuchScheduler")
    with pytest.raises(SpectrumError, match="NoSuchScheduler is no scheduler of diffusers"):
        timing.time_call(subject.pipe, dataclasses.replace(sides[0], sampling=unknown), SAMPLES[:2])


def made(before, candidate, after, nfe=2.0):
    sides = [{"denoise": seconds, "total": seconds + 1} for seconds in (before, candidate, after)]
    return TimedRound(["00000-s0.png"], *sides, [{"cond": [0, 2]}], [{"cond": 4}], nfe)


def test_the_summary_by_hand():
    """Ratios 90, 8 .. 1 in nine rounds of batch 2: median 5, second and eighth 2 and 8; runs 10, 10, ... 28."""
    ratio_of = (1, 90, 8, 7, 6, 5, 4, 3, 2)
    rounds = [made(10.0 * ratio - 5, 10.0, 10.0 * ratio + 5, nfe=28 if ratio == 90 else 10) for ratio in ratio_of]
    found = summary(rounds, batch=2)
    assert (found["speedup"], found["speedup_interval"], found["nfe"]) == (5.0, [2.0, 8.0], 12.0)
    assert found["seconds_per_sample"] == {
        "baseline": {"denoise": 25.0, "total": 25.5},
        "candidate": {"denoise": 5.0, "total": 5.5},
    }
    assert found["speedup_end_to_end"] == pytest.approx(51 / 11)
    one = summary([made(6.0, 2.0, 6.0)], batch=1)
    assert (one["speedup"], one["speedup_interval"]) == (3.0, [3.0, 3.0])


def test_passes_agree_if_their_logarithms_differ_by_less_than_both_half_widths():
    one = (1.0, 0.5, 2.0)  # a half-width of log 2
    assert agree(one, (3.9, 1.95, 7.8)) and agree((3.9, 1.95, 7.8), one)
    assert not agree(one, (4.1, 2.05, 8.2)) and not agree((4.1, 2.05, 8.2), one)
    assert agree((2.0, 2.0, 2.0), (2.0, 2.0, 2.0)) and not agree((2.0, 2.0, 2.0), (2.01, 2.01, 2.01))


@pytest.fixture
def load(monkeypatch):
    """A function that sets the load average of a process that begins now."""

    def at(value):
        machine.load_at_start.cache_clear()
        monkeypatch.setattr(os, "getloadavg", lambda: (value, 9.0, 9.0))

    yield at
    machine.load_at_start.cache_clear()


def test_a_loaded_machine_is_refused_and_its_load_is_in_the_record(load):
    load(0.51)
    with pytest.raises(SpectrumError, match=r"average is 0\.51, and timing needs at most 0\.5.*or type force=true"):
        machine.check_idle(machine.load_at_start(), "force=true")
    forced = machine.conditions(machine.load_at_start())
    assert (forced.load, forced.forced, forced.threads) == ([0.51, 0.51], True, 1)
    load(0.5)
    machine.check_idle(machine.load_at_start(), "force=true")
    load(3.0)
    assert machine.load_at_start() == 3.0
    calm = machine.conditions(0.5)
    assert (calm.load, calm.forced) == ([0.5, 3.0], False)


def test_only_the_load_before_a_process_works_is_judged(load, monkeypatch):
    load(0.1)
    assert machine.load_at_start() == 0.1
    monkeypatch.setattr(os, "getloadavg", lambda: (4.0, 4.0, 4.0))
    assert machine.load_at_start() == 0.1 and machine.load_average() == 4.0


def test_a_record_for_the_shared_folder_needs_seven_rounds_and_an_idle_machine(load):
    load(0.0)
    config = compose(["records=r", "timing=6"])
    with pytest.raises(SpectrumError, match=r"timing=6: .* at least 7 rounds: type timing=7, or timing=0, and then"):
        machine.check_shared_timing(config, None)
    for words in (["records=r", "timing=7"], ["records=r", "timing=0"], ["timing=1"]):
        machine.check_shared_timing(compose(words), None)
    load(2.0)
    for words in (["records=r", "timing=0"], ["timing=1"]):
        machine.check_shared_timing(compose(words), None)
    with pytest.raises(SpectrumError, match=r"loaded: .* type timing=0, and then python scripts/timing.py .*records=r"):
        machine.check_shared_timing(compose(["records=r", "timing=7"]), None)


def test_the_cores_that_other_processes_keep_busy_by_hand(monkeypatch):
    """From reading to reading 1.5 + 0.1 + 0.2 + 0.05 + 0.15 s of work in 2 s, of which 0.5 s are this process's own."""
    tick = os.sysconf("SC_CLK_TCK") / 100
    texts = iter([(1000, 20, 30, 999, 9, 1, 4, 7, 0, 0), (1150, 30, 50, 1900, 99, 6, 19, 57, 0, 0)])
    stat = SimpleNamespace(read_text=lambda: f"cpu  {' '.join(str(int(n * tick)) for n in next(texts))}\ncpu0 1\n")
    monkeypatch.setattr(machine, "Path", {"/proc/stat": stat}.__getitem__)
    clocks = {"monotonic": iter([5.0, 7.0]).__next__, "process_time": iter([3.0, 3.5]).__next__, "sleep": int}
    monkeypatch.setattr(machine, "time", SimpleNamespace(**clocks))
    assert machine.cores_of_others() == pytest.approx(0.75)
    monkeypatch.undo()
    monkeypatch.setattr(machine, "_busy_seconds", lambda: None)
    assert machine.cores_of_others() is None


def test_other_work_that_began_after_the_process_counts_as_load(load, monkeypatch):
    load(0.25)
    shared, own = compose(["records=r", "timing=7"]), compose(["timing=7"])
    monkeypatch.setattr(machine, "cores_of_others", lambda: 1.25)
    with pytest.raises(SpectrumError, match=r"keep 1\.25 cores busy, .*or type timing=0, and then .*records=r"):
        machine.load_before_timing(shared)
    loaded = machine.conditions(machine.load_before_timing(own))
    assert loaded.load[0] == 1.25 and loaded.forced
    for others in (0.0, 0.1, None):
        monkeypatch.setattr(machine, "cores_of_others", lambda others=others: others)
        assert machine.load_before_timing(shared) == 0.25
