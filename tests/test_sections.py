"""A pipeline that samples section after section in one call: what is reported, counted, timed and refused."""

import contextlib
import io

import pytest
import torch
from cases import PROMPTS, STEPS, method_of, subject_of

from spectrum.api import Accelerated, accelerate
from spectrum.bench import progress, timing
from spectrum.bench.fits import Ratios
from spectrum.bench.generate import runs_of_samples
from spectrum.bench.sampling import sample_batch
from spectrum.bench.trace import record_trace
from spectrum.config.sampling import Sampling
from spectrum.core.errors import SpectrumError
from spectrum.core.method import Site
from spectrum.models.toy_pipelines import toy_pipelines
from spectrum.models.watch import CALL
from spectrum.planning.player import Player
from spectrum.planning.rollout import Rollouts
from spectrum.records.sections import held_bytes, in_sections, sections
from spectrum.records.timing import block_runs

NAMES = ["branch 0", "section 2: branch 0"]


@pytest.fixture(scope="module")
def subject():
    """FramePack's toy, which samples two sections."""
    return subject_of("framepack")


def test_a_report_is_of_all_sections_of_the_latest_call_and_of_no_other(subject):
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        for _ in range(2):
            subject.sample()
            report, plan = handle.report(), handle.plan(STEPS)
            assert list(report) == NAMES
            assert all(branch["run_steps"] == plan.runs for branch in report.values())
            assert all(len(branch["run_steps"]) + len(branch["skipped"]) == STEPS for branch in report.values())
        assert held_bytes(report) == report[NAMES[0]]["cache_bytes"] == report[NAMES[1]]["cache_bytes"] > 0
    assert CALL not in vars(subject.pipe)


def test_every_section_counts(subject):
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        subject.sample()
        report = handle.report()
    (one,) = report[NAMES[1]]["samples"]
    (first, *_) = runs_of_samples(report, 2)
    one |= {"run_steps": [0], "skipped": [{"step": step} for step in range(1, STEPS)]}  # as if its data had decided so
    (entry, *_) = runs_of_samples(report, 2)
    assert entry["calls"] == dict.fromkeys(NAMES, STEPS)
    assert block_runs(first) == len(first["runs"][NAMES[0]]) > 1 and block_runs(entry) == (block_runs(first) + 1) / 2


def test_a_call_that_broke_off_is_no_part_of_the_next(subject, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(subject.pipe.vae, "decode", fail)  # behind the first section, outside of the denoiser
            subject.sample()
        assert list(handle.report()) == NAMES[:1]
        subject.sample()
        assert list(handle.report()) == NAMES


def test_where_calls_are_not_told_apart_the_report_is_of_the_latest_loop(subject):
    seen = set()
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        del vars(subject.pipe)[CALL]  # as of a pipeline without check_inputs
        sampling = Sampling.of(subject.config)
        sample_batch(subject.pipe, PROMPTS[:2], sampling, lambda: seen.add(tuple(handle.report())))
        assert list(handle.report()) == NAMES[:1]
    assert seen == {(NAMES[0],)}


def test_denoisers_that_take_turns_are_joined_in_their_section():
    """Wan 2.2's experts: one section, in which their steps follow one another."""
    subject = subject_of("wan22_a14b")
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        for _ in range(2):
            subject.sample()
            assert {name.partition(":")[0] for name in handle.report()} == {"cond", "uncond"}


def test_windows_of_another_family_are_sections_too():
    toy = toy_pipelines()["SkyReelsV2DiffusionForcingPipeline long"]
    pipe = toy.build()
    with accelerate(pipe, "fora") as handle:
        pipe(**toy.arguments(pipe))
        report = handle.report()
    assert len(sections(report)) > 1 and all(branch["skipped"] for branch in report.values())


def test_what_is_done_between_sections_is_not_denoising(subject, monkeypatch):
    now = [0.0]
    decode = subject.pipe.vae.decode

    def slow(*args, **kwargs):
        now[0] += 10.0
        return decode(*args, **kwargs)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(subject.pipe.vae, "decode", slow)
    handle = subject.pipe.transformer.proj_out.register_forward_pre_hook(lambda *a: now.__setitem__(0, now[0] + 1.0))
    side = timing.Side(method_of("none"), Sampling.of(subject.config))
    seconds, _ = timing.time_call(subject.pipe, side, PROMPTS[:2])
    handle.remove()
    assert seconds["total"] - seconds["denoise"] == 20.0 and seconds["denoise"] >= 2 * STEPS


def test_what_knows_one_loop_alone_refuses_a_second(subject):
    fitted_for_one = pytest.raises(SpectrumError, match="section after section, and a plan is fitted for one loop")
    with fitted_for_one, Player(subject.pipe, Site.exit) as player:
        Rollouts(player, subject.sample)
    with pytest.raises(SpectrumError, match="section after section in one call, and a trace is of one loop"):
        record_trace(subject.pipe, PROMPTS[:2], Sampling.of(subject.config), {})
    assert torch.equal(subject.sample(), subject.plain)


def test_where_the_denoiser_was_not_called_no_blocks_ran():
    assert block_runs({"runs": {}, "calls": {}}) == 0.0


def test_sections_of_fewer_steps_count_for_less():
    runs = in_sections([{"cond": [0, 1, 2], "uncond": [0]}, {"cond": [0]}])
    calls = in_sections([{"cond": 6, "uncond": 2}, {"cond": 2}])
    assert block_runs({"runs": runs, "calls": calls}) == 4 * 6 / 8


def test_progress_goes_on_where_sections_take_more_steps_than_were_counted(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    out = io.StringIO()
    advance = progress.Progress(progress.Console(file=out)).start("spectrum", 2)
    for _ in range(4):
        advance(1)
    lines = [line.partition(",")[0] for line in out.getvalue().splitlines()]
    assert lines == ["spectrum: 1 of 2 sample steps", "spectrum: 3 sample steps", "spectrum: 4 sample steps"]


def test_ratios_of_residuals_are_refused_where_there_are_none(subject):
    found = pytest.raises(SpectrumError, match=r"leaves them, so there is no residual to fit magcache to")
    with Accelerated(subject.pipe, method_of("spectrum"), observe=Ratios(None)), found:
        subject.sample()


def test_a_swapped_denoiser_is_refused_where_a_call_begins_if_no_loop_tells():
    one = toy_pipelines()["AnyFlowFARPipeline"]
    pipe = one.build()
    with accelerate(pipe, "fora"), torch.no_grad():
        pipe.transformer = one.build().transformer
        with pytest.raises(SpectrumError, match="denoiser"):
            pipe(**one.arguments(pipe))
