"""Samples of a batch that decide each for themselves, on the denoiser of `small.py`, which makes `900 x + 310.5`."""

from types import SimpleNamespace

import pytest
import torch
from small import Block, Small, method, put_on

from spectrum import SpectrumError
from spectrum.bench.generate import sample_report
from spectrum.hooks.samples import batched_samples, rows_of
from spectrum.hooks.trajectory import joined


def by_drift(step, steps, past, drift):
    return not past or drift >= 3.0


def moved(context):
    return float((context.signal - context.previous).abs().mean())


def deciding(**settings):
    return method(**{"schedule": by_drift, "drift": moved, "signal": "latents", **settings})


def denoiser(*blocks):
    model = Small(*blocks)
    model.config = SimpleNamespace(in_channels=1, patch_size=1)
    return model


def batch(*values):
    return torch.stack([torch.full((1, 2, 2), float(value)) for value in values])


def walk(model, scheduler, rows):
    """The first pixel of each row at each step."""
    found = []
    for scheduler.step_index, values in enumerate(rows):
        found.append(model(batch(*values))[0][:, 0, 0, 0].tolist())
    return found


def full(value):
    return 900 * value + 310.5


STEPS = [(1, 1), (5, 2), (9, 3), (9, 4)]
"""The first sample moves by 4, 4 and 0, the second by 1, 1 and 1: it comes to 3 at the last step."""


@pytest.mark.parametrize(
    ("settings", "second"),
    [
        ({}, [full(1), full(1), full(1), full(4)]),
        ({"space": "residual"}, [full(1), full(1) + 1, full(1) + 2, full(4)]),
        ({"site": "output"}, [full(1), full(1), full(1), full(4)]),
        ({"site": "output", "space": "residual"}, [full(1), full(1) + 1, full(1) + 2, full(4)]),
    ],
)
def test_each_sample_has_its_own_run_steps_and_histories(settings, second):
    model = denoiser()
    hook, scheduler = put_on(model, deciding(**settings))
    found = walk(model, scheduler, STEPS)
    last = full(9) if "space" not in settings or settings["space"] == "feature" else full(9) + 0
    assert [row[0] for row in found] == [full(1), full(5), full(9), last]
    assert [row[1] for row in found] == second
    report = hook.report()["branch 0"]
    assert [own["run_steps"] for own in report["samples"]] == [[0, 1, 2], [0, 3]]
    assert [[s["step"] for s in own["skipped"]] for own in report["samples"]] == [[3], [1, 2]]
    assert report["run_steps"] == [0, 1, 2, 3] and report["skipped"] == []
    for number, values in enumerate(zip(*STEPS, strict=True)):
        hook.remove()
        hook, scheduler = put_on(model, deciding(**settings))
        alone = walk(model, scheduler, [(value,) for value in values])
        assert [row[0] for row in alone] == [row[number] for row in found]
        assert hook.report()["branch 0"]["run_steps"] == report["samples"][number]["run_steps"]


def test_front_blocks_decide_for_each_sample_by_their_residual():
    """The first of two blocks adds `29 x + 10`, so one unit of `x` moves its residual by 29."""
    model = denoiser()
    settings = {"front_blocks": 1, "signal": "front_residual", "space": "residual"}
    rule = deciding(**settings, drift=lambda context: moved(context) / 29)
    hook, scheduler = put_on(model, rule)
    found = walk(model, scheduler, STEPS)
    assert [own["run_steps"] for own in hook.report()["branch 0"]["samples"]] == [[0, 1, 2], [0, 3]]
    stale = (30 * 40 + 10) - 40
    assert [row[1] for row in found] == [full(1), 30 * 2 + 10 + stale + 0.5, 30 * 3 + 10 + stale + 0.5, full(4)]


def test_blocks_run_for_the_whole_batch_where_any_sample_runs_and_for_none_where_all_skip():
    model, ran = denoiser(), []
    model.blocks[0].register_forward_pre_hook(lambda module, args: ran.append(len(args[0])))
    _, scheduler = put_on(model, deciding())
    walk(model, scheduler, [(1, 1), (5, 2), (5, 2), (5, 2)])
    assert ran == [2, 2]


def test_a_batch_decision_is_one_for_all():
    model = denoiser()
    hook, scheduler = put_on(model, deciding(batch_decision=True))
    found = walk(model, scheduler, STEPS)
    assert found == [[full(1), full(1)], [full(1), full(1)], [full(9), full(3)], [full(9), full(3)]]
    (own,) = hook.report()["branch 0"]["samples"]
    assert own["run_steps"] == [0, 2]


def test_copies_of_batched_guidance_are_one_sample_and_equal_noise_is_not():
    model = denoiser()
    hook, scheduler = put_on(model, deciding())
    walk(model, scheduler, [(1, 1, 1, 1), (5, 2, 5, 2), (9, 3, 9, 3), (9, 4, 9, 4)])
    report = hook.report()["branch 0"]
    assert [own["run_steps"] for own in report["samples"]] == [[0, 1, 2], [0, 3]]
    assert report["cache_bytes"] == 4 * 4 * 4, "reuse needs the newest feature of every row alone"
    assert batched_samples(batch(1, 2, 1, 2, 1, 2)) == 2 and batched_samples(batch(1, 2, 1, 3)) == 4
    assert batched_samples(batch(1, 1, 1)) == 1 and batched_samples(batch(7)) == 1


def test_branches_that_share_a_decision_share_that_of_each_sample():
    model = denoiser()
    hook, scheduler = put_on(model, deciding(shared_decision=True))
    one, two = torch.zeros(1), torch.zeros(1)
    for scheduler.step_index, values in enumerate(STEPS):
        model(batch(*values), encoder_hidden_states=one)
        model(batch(*values) * 100, encoder_hidden_states=two)
    for branch in hook.report().values():
        assert [own["run_steps"] for own in branch["samples"]] == [[0, 1, 2], [0, 3]]


def test_the_probe_measures_each_sample_at_the_steps_that_it_skips():
    model = denoiser()
    hook, scheduler = put_on(model, deciding(), probe=True)
    walk(model, scheduler, STEPS)
    first, second = hook.report()["branch 0"]["samples"]
    assert [e["step"] for e in first["errors"]] == [3] and first["errors"][0]["velocity"] == 0
    assert [e["step"] for e in second["errors"]] == [1, 2]
    off = [(full(2) - full(1)) / full(2), (full(3) - full(1)) / full(3)]
    assert [e["velocity"] for e in second["errors"]] == pytest.approx(off)
    assert second["errors"][0]["feature"] == pytest.approx(900 / 2110)


def test_a_signal_that_all_samples_share_is_shown_to_each():
    shared = torch.ones(1, 3)
    assert rows_of(shared, slice(1, None, 2), 2) is shared
    assert rows_of(batch(1, 2), slice(1, None, 2), 2).flatten()[0] == 2
    with pytest.raises(SpectrumError, match=r"the signal has 3 rows and the batch 2, .* method.batch_decision=true"):
        rows_of(torch.ones(3, 1), slice(0, None, 2), 2)


@pytest.mark.parametrize(("rows", "counts"), [(STEPS[:2], [2, 1]), (STEPS, [2, 2])])
def test_what_is_kept_of_a_sample_does_not_keep_the_whole_batch(rows, counts):
    model = denoiser()
    hook, scheduler = put_on(model, deciding())
    walk(model, scheduler, rows)
    (branch,) = hook._trajectory.branches
    kept = [own.at_runs for own in branch.samples]
    assert [len(pairs) for pairs in kept] == counts
    for value in [value for pairs in kept for pair in pairs for value in pair]:
        assert value.untyped_storage().nbytes() == value.nbytes


def test_a_lone_sample_is_kept_without_a_copy():
    model = denoiser()
    hook, scheduler = put_on(model, deciding())
    for scheduler.step_index, value in enumerate((1, 5, 9)):
        latents = batch(value, 0)[:1]
        model(latents)
    (branch,) = hook._trajectory.branches
    assert branch.at_runs[-1][0] is latents


def test_what_has_no_row_for_each_sample_is_refused_with_what_to_type():
    class Flat(Block):
        def forward(self, x):
            return super().forward(x).flatten(0, 1)[None]

    for model, settings in ((denoiser(), {"site": "modules"}), (denoiser(Flat()), {})):
        _, scheduler = put_on(model, deciding(**settings))
        model(batch(1, 2))
        scheduler.step_index = 1
        with pytest.raises(SpectrumError, match=r"no row for each: .* type method.batch_decision=true"):
            model(batch(5, 3))


def test_a_sample_is_given_its_own_part_of_a_report():
    samples = [{"run_steps": [number]} for number in range(4)]
    assert sample_report({"all": {"samples": samples[:1]}}, 1, 2) == {"all": samples[0]}
    assert sample_report({"rows": {"samples": samples}}, 1, 2) == {"rows": samples[1], "rows 1": samples[3]}


def test_reports_of_denoisers_that_take_turns_are_joined_sample_by_sample():
    def part(*steps):
        return {"run_steps": list(steps), "skipped": [], "errors": []}

    first = {**part(0, 1), "cache_bytes": 8, "samples": [part(0), part(0, 1)]}
    second = {**part(5), "cache_bytes": 4, "samples": [part(5)]}
    found = joined(first, second)
    assert [own["run_steps"] for own in found["samples"]] == [[0, 5], [0, 1, 5]]
    assert found["run_steps"] == [0, 1, 5] and found["cache_bytes"] == 8
