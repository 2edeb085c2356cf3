"""Traces and replays, against the hook that runs in the closed loop."""

import dataclasses

import pytest
import torch

from spectrum.api import Accelerated, denoisers
from spectrum.bench.prompts import numbered_samples
from spectrum.bench.replay import by_distance, head, replay, summary
from spectrum.bench.sampling import sample_batch
from spectrum.bench.trace import Trace, record_trace
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.core.errors import SpectrumError
from spectrum.named_methods import load_method

STEPS = 12


@pytest.fixture(scope="module")
def sampled(_tiny):
    config = compose([f"model.steps={STEPS}", "batch=3"])
    batch, sampling = numbered_samples(["a cat on blue", "a key on red", "a bee on teal"], [0]), Sampling.of(config)
    return _tiny, batch, sampling, record_trace(_tiny, batch, sampling, {"model": "x", "prompts": ["a"]})


def test_a_trace_holds_every_step_of_both_branches(sampled):
    trace = sampled[3]
    assert trace.steps == STEPS and set(trace.branches) == {"cond", "uncond"}
    for calls in trace.branches.values():
        assert [seen.step for seen in calls] == list(range(STEPS))
        assert calls[0].feature.shape == calls[0].entry.shape == (3, 144, 192)
        assert calls[0].inputs["encoder_hidden_states"] is calls[5].inputs["encoder_hidden_states"]
        assert not torch.equal(calls[0].feature, calls[5].feature)


def test_the_head_of_the_true_feature_is_the_true_velocity(sampled):
    pipe, _, _, trace = sampled
    (model,) = denoisers(pipe)
    for seen in trace.branches["cond"][::5]:
        assert torch.equal(head(model, seen, seen.feature), seen.velocity)
    assert len(model.transformer_blocks) == 2


@pytest.mark.parametrize("name", ["spectrum", "taylorseer", "fora"])
def test_before_feedback_a_replay_says_what_the_hook_measures(sampled, name):
    pipe, batch, sampling, trace = sampled
    method = load_method(name, ["schedule=explicit", "schedule.run_steps=[0,1,2,3,4,5,9]"])
    with Accelerated(pipe, method, probe=True) as handle:
        sample_batch(pipe, batch, sampling)
        closed = handle.report()
    runs, scores = replay(trace, denoisers(pipe)[0], method)
    for branch, found in closed.items():
        assert runs[branch] == found["run_steps"]
        first = next(score for score in scores if score.branch == branch)
        assert first.step == found["errors"][0]["step"] == 6
        assert first.feature == pytest.approx(found["errors"][0]["feature"], rel=1e-4)
        assert first.velocity == pytest.approx(found["errors"][0]["velocity"], rel=1e-4)


def test_residual_space_and_data_dependent_schedules_replay(sampled):
    pipe, _, _, trace = sampled
    (model,) = denoisers(pipe)
    method = load_method("teacache", ["method.drift.coefficients=[1.0,0.0]", "schedule.threshold=0.2"])
    runs, scores = replay(trace, model, method)
    assert runs["cond"][0] == 0 and runs["cond"][-1] == STEPS - 1 and 2 < len(runs["cond"]) < STEPS
    assert all(score.total == 1.0 and score.velocity > 0 for score in scores)


def test_distances_grow_and_nothing_is_skipped_by_always(sampled):
    pipe, _, _, trace = sampled
    (model,) = denoisers(pipe)
    scores = by_distance(trace, model, load_method("fora"), [0, 1, 2, 3, 4, 5], most=4)
    mean = {k: sum(s.feature for s in scores if s.distance == k) for k in (1, 2, 4)}
    assert mean[1] < mean[2] < mean[4]
    assert summary(replay(trace, model, load_method("fora", ["schedule=always"]))[1]) == {}


def test_traces_are_written_whole_and_read_back(sampled, tmp_path):
    trace = sampled[3]
    path = tmp_path / "trace.pt"
    trace.save(path)
    again = Trace.load(path)
    assert again.about == trace.about and again.clocks == trace.clocks
    before, after = trace.branches["uncond"][4], again.branches["uncond"][4]
    assert torch.equal(before.velocity, after.velocity) and dataclasses.asdict(before).keys() == vars(after).keys()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SpectrumError, match="no whole trace"):
        Trace.load(path)
    with pytest.raises(SpectrumError, match="there is no trace"):
        Trace.load(tmp_path / "none.pt")
    with pytest.raises(SpectrumError, match=f"{tmp_path} is no whole trace"):
        Trace.load(tmp_path)


@pytest.mark.parametrize("lacks", ["about", "clocks", "branches", "model", "prompts"])
def test_a_file_that_lacks_a_part_of_a_trace_is_none(sampled, tmp_path, lacks):
    path = tmp_path / "trace.pt"
    sampled[3].save(path)
    content = torch.load(path, weights_only=True)
    whole = {**content, "about": dict(content["about"])}
    (whole["about"] if lacks in ("model", "prompts") else whole).pop(lacks)
    torch.save(whole, path)
    with pytest.raises(SpectrumError, match=r"no whole trace.*run scripts/trace.py again"):
        Trace.load(path)
