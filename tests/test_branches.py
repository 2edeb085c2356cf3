"""Which CFG branch a call of the denoiser belongs to, on the denoiser of `small.py`."""

import pytest
import torch
from small import LAYOUT, Small, latents, method, numbers, put_on, steps

from spectrum import Denoiser, SpectrumError
from spectrum.hooks.branches import Caller, find_branch
from spectrum.hooks.trajectory import Branch, Trajectory


def test_branches_are_told_apart_by_their_conditioning_tensors():
    model, (one, two) = Small(), torch.zeros(2, 1)
    hook, scheduler = put_on(model, method())
    found = {}
    for scheduler.step_index in range(2):
        for name, value, condition in (("one", 1, one), ("two", 2, two), ("both", 3, [one, two])):
            output = model(latents(value + scheduler.step_index), encoder_hidden_states=condition)
            found.setdefault(name, []).append(numbers(output[0]))
    assert found == {"one": [1210.5] * 2, "two": [2110.5] * 2, "both": [3010.5] * 2}
    assert list(hook.report()) == ["branch 0", "branch 1", "branch 2"]
    scheduler.step_index = 0
    conditions = torch.zeros(9, 1)
    for condition in conditions[:8]:
        model(latents(1), encoder_hidden_states=condition)
    says = (
        r"^Small was called in 9 different ways by step 0 \(9 of them at this step\), so its CFG branches "
        r"cannot be told apart: what it is conditioned on changes from step to step, or a loop of one's own does not "
        r"step the pipeline's scheduler. Give Denoiser\(condition=...\) the argument that tells them apart$"
    )
    with pytest.raises(SpectrumError, match=says):
        model(latents(1), encoder_hidden_states=conditions[8])


def test_calls_with_one_condition_are_told_apart_by_their_order_within_a_step():
    for layout in (LAYOUT, Denoiser(exit="norm_out", stacks=("blocks",), condition=None)):
        model, one = Small(), torch.zeros(1)
        hook, scheduler = put_on(model, method(), layout)
        for scheduler.step_index in range(2):
            found = [numbers(model(latents(value), encoder_hidden_states=one)[0]) for value in (1, 2)]
            assert found == [1210.5, 2110.5]
        assert {name: own["run_steps"] for name, own in hook.report().items()} == {"branch 0": [0], "branch 1": [0]}


def test_a_condition_that_is_made_anew_at_each_step_is_known_by_its_values():
    model, (one, two) = Small(), torch.tensor([[1.0], [2.0]])
    hook, scheduler = put_on(model, method())
    for scheduler.step_index, order in enumerate(([one, two], [two, one], [two])):
        for condition in order:
            model(latents(condition.item()), encoder_hidden_states=condition.clone())
    assert list(hook.report()) == ["branch 0", "branch 1"]
    assert [len(own["run_steps"]) + len(own["skipped"]) for own in hook.report().values()] == [2, 3]


def test_a_condition_that_changes_begins_a_branch_which_runs():
    model = Small()
    hook, scheduler = put_on(model, method())
    for scheduler.step_index in range(2):
        model(latents(1), encoder_hidden_states=torch.full((1,), float(scheduler.step_index)))
    assert [own["run_steps"] for own in hook.report().values()] == [[0], [1]]


def test_latents_of_another_size_have_a_history_of_their_own():
    model, one = Small(), torch.zeros(1)
    hook, scheduler = put_on(model, method(schedule=lambda step, steps, past, drift=0.0: step == 0))
    for scheduler.step_index, rows in enumerate((2, 2, 1, 1)):
        output = model(torch.full((rows, 1, 2, 2), float(rows + scheduler.step_index)), encoder_hidden_states=one)[0]
        assert output.shape == (rows, 1, 2, 2)
    assert [own["run_steps"] for own in hook.report().values()] == [[0], [2]]


def test_a_second_timestep_at_one_step_is_refused():
    model = Small()
    put_on(model, method())
    model(latents(1), timestep=torch.tensor([900.0]))
    with pytest.raises(SpectrumError, match=r"^Small was called with another timestep at the same step 0 of the "):
        model(latents(1), timestep=torch.tensor([800.0]))


def trajectory_with(*branches):
    return Trajectory([], [0.0] * 8, (0.0, 8.0), [], list(branches))


def test_a_named_branch_whose_condition_changes_begins_anew():
    one, two = torch.zeros(1), torch.ones(1)
    known = Branch("cond", 0, None, "cond", (one,), ("kinds",), last=2)
    for condition, expected in ((one, known), (one.clone(), known), (two, None)):
        who = Caller("Small", "cond", (condition,), ("kinds",), None)
        assert find_branch(trajectory_with(known), who, 3) is expected
    who = Caller("Small", "cond", (one,), ("other kinds",), None)
    assert find_branch(trajectory_with(known), who, 3) is None
    with pytest.raises(SpectrumError, match=r"^the denoiser was called twice at step 2 for the CFG branch cond"):
        find_branch(trajectory_with(known), Caller("Small", "cond", (one,), ("kinds",), None), 2)


def test_a_call_that_is_left_out_among_calls_with_one_condition_is_refused():
    one = torch.zeros(1)
    known = [Branch(name, 0, None, None, (one,), ("kinds",), last=last) for name, last in (("a", 2), ("b", 1))]
    with pytest.raises(
        SpectrumError, match=r"^Small was called 2 times a step with one condition, and at a step before"
    ):
        find_branch(trajectory_with(*known), Caller("Small", None, (one,), ("kinds",), None), 3)


def test_calls_of_which_each_begins_a_branch_are_refused_and_do_not_run_uncached():
    model = Small()
    _, scheduler = put_on(model, method(schedule=lambda step, steps, past, drift=0.0: step == 0), scheduler=steps(8))
    for scheduler.step_index in range(4):
        model(latents(1), encoder_hidden_states=torch.full((1,), float(scheduler.step_index)))
    scheduler.step_index = 4
    with pytest.raises(
        SpectrumError, match=r"^Small was called in 5 different ways by step 4 \(1 of them at this step\)"
    ):
        model(latents(1), encoder_hidden_states=torch.full((1,), 4.0))
