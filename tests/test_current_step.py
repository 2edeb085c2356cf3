"""One step of one CFG branch, and what a branch remembers, with signals that are numbers."""

import math
from types import SimpleNamespace

import pytest
import torch

from spectrum.core.errors import SpectrumError
from spectrum.core.forecast import reuse
from spectrum.core.method import Method
from spectrum.hooks.signals import token_grid
from spectrum.hooks.step import CurrentStep, DenoiserCall
from spectrum.hooks.trajectory import Branch, Trajectory


def by_drift(step, steps, past, drift):
    """Runs at the first step, and where the drift has come to 3."""
    return not past or drift >= 3.0


LEVELS = [(0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (0.9, 0.1)]


def moved(context):
    return float((context.signal - context.previous).abs().sum())


def trajectory_of(steps=5):
    return Trajectory(None, [float(s) for s in range(steps)], (0.0, float(steps)), LEVELS[:steps])


def walk(method, signals, branch, trajectory, front=False):
    """Ask at each step whether the blocks run, store the step's number where they do; the answers."""
    answers = []
    for number, signal in enumerate(signals):
        value = torch.tensor([float(signal)])
        branch.last = branch.origin + number
        own = torch.zeros(1) if front else value
        call = DenoiserCall(lambda: 0, lambda x, *, y: x + y, (own,), {"y": own}, {"x": own})
        step = CurrentStep(method, trajectory, branch, call, lambda inputs, run: (run() + inputs["x"]) / 3)
        runs = step.runs(front_residual=value) if front else step.runs()
        if runs:
            branch.store(trajectory.times[branch.last], {"exit": torch.full((2,), float(branch.last))})
            branch.remember_run(-value)
        answers.append(runs)
    return answers


@pytest.mark.parametrize("front", [False, True])
def test_drifts_are_summed_since_the_last_run_and_begin_anew_after_it(front):
    branch = Branch("one", 0, None)
    method = Method("mine", reuse, by_drift, drift=moved)
    assert walk(method, [0, 1, 3, 4, 6.5], branch, trajectory_of(), front) == [True, False, True, False, True]
    assert branch.runs == [0, 2, 4] and branch.drift == 0.0
    newest = Branch("two", 0, None)
    method = Method("mine", reuse, by_drift, drift=moved, accumulate=False)
    assert walk(method, [0, 1, 3, 6.5, 7], newest, trajectory_of(), front) == [True, False, False, True, False]
    assert newest.drift == 0.5


def test_a_method_is_shown_this_step_the_one_before_and_the_two_newest_runs():
    shown = []

    def look(context):
        shown.append(context)
        return 4.0 if len(shown) in (1, 3) else 1.0

    branch = Branch("one", 0, None, grid=(1, 2))
    walk(Method("mine", reuse, by_drift, drift=look), [10, 11, 12, 13, 14], branch, trajectory_of())
    assert [(c.previous.item(), c.signal.item()) for c in shown] == [(10, 11), (11, 12), (12, 13), (13, 14)]
    assert [c.levels for c in shown] == [(LEVELS[i + 1], LEVELS[i]) for i in range(4)]
    assert {c.grid for c in shown} == {(1, 2)}
    at_runs = [[(a.item(), b.item()) for a, b in c.at_runs] for c in shown]
    assert at_runs == [[(10, -10)], [(10, -10), (11, -11)], [(10, -10), (11, -11)], [(11, -11), (13, -13)]]


def test_a_branch_that_begins_later_counts_its_steps_from_there():
    asked = []

    def schedule(step, steps, past, drift=0.0):
        asked.append((step, steps, list(past), drift))
        return step != 1

    branch = Branch("second expert", 2, None)
    assert walk(Method("mine", reuse, schedule), [0, 0, 0], branch, trajectory_of()) == [True, False, True]
    assert asked == [(0, 3, [], 0.0), (1, 3, [0], 0.0), (2, 3, [0], 0.0)] and branch.runs == [2, 4]


def test_branches_share_a_decision_where_the_method_says_so_but_for_the_first_run_of_each():
    for shared, expected in ((True, [True, False, False, False]), (False, [True, False, True, False])):
        trajectory = trajectory_of()
        method = Method("mine", reuse, by_drift, drift=moved, shared_decision=shared)
        one, two = Branch("one", 0, None), Branch("two", 0, None)
        assert walk(method, [0, 1, 2, 2], one, trajectory) == [True, False, False, False]
        assert walk(method, [0, 1, 5, 5], two, trajectory) == expected
        late = Branch("three", 3, None)
        assert walk(method, [0], late, trajectory) == [True] and trajectory.decided[3, 0]


def test_a_signal_that_is_nan_is_named_with_its_step():
    branch = Branch("one", 0, None)
    with pytest.raises(SpectrumError, match=r"^the signal of mine has NaN at step 2: look at the inputs and weights"):
        walk(Method("mine", reuse, by_drift, drift=moved), [0, 1, math.nan], branch, trajectory_of())


def test_a_forecast_has_its_weights_worked_out_once_a_step_for_all_slots():
    asked = []

    def mean(times, now, span):
        asked.append((list(times), now, span))
        return [1 / len(times)] * len(times)

    trajectory, branch = trajectory_of(), Branch("one", 0, None, grid=(2, 1))
    for time in (0.0, 2.0):
        branch.store(time, {"exit": torch.full((2,), time), "other": torch.full((3,), 10 + time)})
    call = DenoiserCall(lambda: 0, lambda: 0, (), {}, {})
    for number, correct in ((3, None), (4, lambda forecast, newest, grid: forecast + newest * grid[0])):
        branch.last = number
        step = CurrentStep(Method("mine", mean, correct=correct), trajectory, branch, call, None)
        extra = 0.0 if correct is None else 4.0
        assert step.forecast("exit").tolist() == [1.0 + extra] * 2
        assert step.forecast("other").tolist() == [11.0 + (24.0 if correct else 0.0)] * 3
    assert asked == [([0.0, 2.0], 3.0, (0.0, 5.0)), ([0.0, 2.0], 4.0, (0.0, 5.0))]
    assert [(s.step, s.weights) for s in branch.skipped] == [(3, [0.5, 0.5]), (4, [0.5, 0.5])]


def test_weights_that_are_known_are_used_where_the_features_are_those_that_they_are_for():
    trajectory, branch = trajectory_of(), Branch("one", 0, None)
    trajectory.known = {3: ([0.0, 2.0], [0.25, 0.75]), 4: ([0.0, 1.0], [5.0, 5.0])}
    for time in (0.0, 2.0):
        branch.store(time, {"exit": torch.full((2,), time)})
    step = CurrentStep(Method("mine", reuse), trajectory, branch, DenoiserCall(lambda: 0, lambda: 0, (), {}, {}), None)
    for branch.last, expected in ((3, 1.5), (4, 2.0)):
        assert step.forecast("exit").tolist() == [expected] * 2


def test_the_report_of_a_run_says_what_each_branch_did():
    trajectory, branch = trajectory_of(), Branch("cond", 0, 2)
    trajectory.branches.append(branch)
    for time in (0.0, 1.0, 3.0):
        branch.store(time, {"exit": torch.zeros(4), "other": torch.zeros(2)})
    assert branch.times == [1.0, 3.0]
    branch.runs = [0, 1, 3]
    branch.errors.append({"step": 2})
    branch.last = 4
    call = DenoiserCall(lambda: 0, lambda: 0, (), {}, {})
    CurrentStep(Method("mine", lambda times, now, span: [-0.5, 1.5]), trajectory, branch, call, None).forecast("exit")
    assert trajectory.report() == {
        "cond": {
            "run_steps": [0, 1, 3],
            "skipped": [{"step": 4, "sum": 1.0, "l1": 2.0}],
            "errors": [{"step": 2}],
            "cache_bytes": 2 * (4 + 2) * 4,
            "samples": [
                {"run_steps": [0, 1, 3], "skipped": [{"step": 4, "sum": 1.0, "l1": 2.0}], "errors": [{"step": 2}]}
            ],
        }
    }


def test_the_grid_of_the_tokens_is_read_from_coordinates_shapes_or_latents():
    model = SimpleNamespace(config=SimpleNamespace(in_channels=3, patch_size=2, patch_size_t=None))
    ids = torch.tensor([[0, 0, 0], [0, 3, 1], [0, 2, 4]])
    for given, expected in (
        ({"img_ids": ids}, (4, 5)),
        ({"img_ids": ids[None]}, (4, 5)),
        ({"img_ids": ids + 512}, (4, 5)),
        ({"img_ids": torch.tensor([[0, 0, 0, 0], [0, 3, 4, 7]])}, (4, 5)),
        ({"img_shapes": [(1, 6, 7)]}, (6, 7)),
        ({"img_shapes": [[(1, 6, 7), (1, 8, 9)]]}, (6, 7)),
        ({"num_frames": 2, "height": 4, "width": 6, "hidden_states": ids}, (2, 4, 6)),
        ({"num_frames": None, "height": 4, "width": 6, "hidden_states": torch.zeros(1, 3, 8, 12)}, (4, 6)),
        ({"hidden_states": torch.zeros(1, 3, 8, 12)}, (4, 6)),
        ({"sample": torch.zeros(1, 3, 8, 12)}, (4, 6)),
        ({"hidden_states": torch.zeros(1, 3, 5, 8, 12)}, (5, 4, 6)),
        ({"hidden_states": torch.zeros(1, 5, 3, 8, 12)}, (5, 4, 6)),
        ({"hidden_states": torch.zeros(3, 7, 9, 12)}, (4, 6)),
        ({"hidden_states": torch.zeros(1, 4, 8)}, None),
        ({"hidden_states": [torch.zeros(3, 8, 12)]}, None),
        ({}, None),
    ):
        assert token_grid(model, given) == expected, given
    for settings, expected in (
        ({"patch_size": 2, "patch_size_t": 4}, (2, 4, 6)),
        ({"patch_size": [1, 2, 4]}, (8, 4, 3)),
        ({"patch_size": (2, 4), "patch_size_t": 2}, (4, 4, 3)),
        ({"patch_size": (2, 4)}, (8, 4, 3)),
        ({"patch_size": None}, (8, 8, 12)),
        ({}, (8, 8, 12)),
    ):
        model = SimpleNamespace(config=SimpleNamespace(**settings))
        assert token_grid(model, {"hidden_states": torch.zeros(2, 16, 8, 8, 12)}) == expected, settings


def test_a_correction_refuses_features_in_five_dimensions():
    trajectory, branch = trajectory_of(), Branch("one", 0, None)
    branch.store(0.0, {"exit": torch.ones(1, 2, 3, 4, 5)})
    branch.last = 1
    call = DenoiserCall(lambda: 0, lambda: 0, (), {}, {})
    step = CurrentStep(Method("freqca", reuse, correct=lambda *_: None), trajectory, branch, call, None)
    with pytest.raises(SpectrumError, match=r"method=freqca works on .* \(1, 2, 3, 4, 5\): type another method"):
        step.forecast("exit")
