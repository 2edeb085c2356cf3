"""The hook on the denoiser of `small.py`, along a scheduler that says what it is told."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import CacheMixin
from small import LAYOUT, Block, Multiply, Small, latents, method, numbers, put_on, steps, walk

from spectrum import Denoiser, SpectrumError
from spectrum.core.schedule import always
from spectrum.hooks.exit_site import ExitSite, FrontExitSite
from spectrum.hooks.module_site import ModuleSite
from spectrum.hooks.output_site import OutputSite
from spectrum.hooks.site_of_method import site_of


@pytest.mark.parametrize(
    ("settings", "kind", "expected", "blocks"),
    [
        ({}, ExitSite, [1210.5, 1210.5, 3010.5, 3010.5], 4),
        ({"space": "residual"}, ExitSite, [1210.5, 1211.5, 3010.5, 3011.5], 4),
        ({"front_blocks": 1}, FrontExitSite, [1210.5, 1210.5, 3010.5, 3010.5], 6),
        ({"site": "output"}, OutputSite, [1210.5, 1210.5, 3010.5, 3010.5], 4),
        ({"site": "output", "space": "residual"}, OutputSite, [1210.5, 1211.5, 3010.5, 3011.5], 4),
        ({"site": "modules"}, ModuleSite, [1210.5, 1210.5, 3010.5, 3010.5], 8 + 2),  # two in the proof
    ],
)
def test_each_site_runs_and_forecasts_where_the_method_says(settings, kind, expected, blocks):
    model, ran = Small(), []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda *args: ran.append(1))
    assert type(site_of(Small(), LAYOUT, method(**settings))) is kind
    before = set(vars(model))
    hook, scheduler = put_on(model, method(**settings))
    assert walk(model, scheduler, [1, 2, 3, 4]) == expected and len(ran) == blocks
    assert hook.report()["branch 0"]["run_steps"] == [0, 2]
    hook.remove()
    assert set(vars(model)) == before and walk(model, scheduler, [1, 2]) == [1210.5, 2110.5]


def test_a_trajectory_begins_anew_where_the_scheduler_is_set_anew_and_its_report_stays():
    model, begun = Small(), []
    hook, scheduler = put_on(model, method())
    hook.on_start = lambda timesteps, step: begun.append(scheduler.step_index)
    assert hook.report() == {} and not hook.running
    assert walk(model, scheduler, [1, 2, 3]) == [1210.5, 1210.5, 3010.5] and begun == [0] and hook.running
    assert walk(model, scheduler, [5, 6]) == [4810.5, 4810.5] and begun == [0, 0]
    scheduler.timesteps = scheduler.timesteps.clone()
    scheduler.step_index = 1
    assert numbers(model(latents(1))[0]) == 1210.5 and begun == [0, 0, 1]
    assert hook.report()["branch 0"]["run_steps"] == [1]
    hook.reset()
    assert hook.report()["branch 0"]["run_steps"] == [1] and not hook.running


def test_an_error_ends_the_trajectory():
    model = Small()
    hook, scheduler = put_on(model, method())
    walk(model, scheduler, [1, 2])
    wrench = model.blocks[1].register_forward_pre_hook(lambda *args: 1 / 0)
    scheduler.step_index = 2
    with pytest.raises(ZeroDivisionError):
        model(latents(1))
    assert not hook.running and hook.report()["branch 0"]["run_steps"] == [0, 2]
    wrench.remove()
    assert walk(model, scheduler, [3, 4]) == [3010.5, 3010.5]


def test_a_call_that_fills_a_cache_for_later_ones_runs_and_is_no_step():
    model = Small()
    layout = Denoiser(exit="norm_out", stacks=("blocks",), fills={"timestep.mode": "write"})
    hook, scheduler = put_on(model, method(), layout)
    for scheduler.step_index in range(2):
        assert numbers(model(latents(5), timestep={"mode": "write"})[0]) == 4810.5 and not hook.running
    assert walk(model, scheduler, [1, 2]) == [1210.5, 1210.5]
    assert numbers(model(latents(5), timestep=SimpleNamespace(mode="write"))[0]) == 4810.5
    assert hook.report()["branch 0"]["run_steps"] == [0] and len(hook.report()) == 1


def test_what_was_fitted_for_other_steps_is_refused_and_so_is_a_forecast_without_weights():
    model = Small()
    put_on(model, method(fitted_steps=5))
    says = (
        r"^what mine needs was fitted for 5 steps and this run has 4: fit it for them with python scripts/"
        r"calibrate.py, or give its values, for example 'schedule.threshold=0.1'$"
    )
    with pytest.raises(SpectrumError, match=says):
        model(latents(1))
    for fitted in (4, None):
        model = Small()
        _, scheduler = put_on(model, method(fitted_steps=fitted))
        assert walk(model, scheduler, [1, 2]) == [1210.5, 1210.5]
    model = Small()
    put_on(model, method(forecast=lambda times, now, span: [now]))
    with pytest.raises(SpectrumError, match="the forecast of mine must return 2 weights"):
        walk(model, steps(), [1])


def test_one_that_decides_by_data_is_refused_on_a_denoiser_split_over_ranks():
    for settings, refused in (({}, False), ({"schedule": by_drift, "drift": lambda context: 0.0}, True)):
        model = Small()
        model._parallel_config = SimpleNamespace(context_parallel_config="two ranks")
        _, scheduler = put_on(model, method(**settings, signal="latents"))
        if refused:
            with pytest.raises(SpectrumError, match=r"^mine decides by data, of which each rank of a parallel"):
                walk(model, scheduler, [1])
        else:
            assert walk(model, scheduler, [1]) == [1210.5]


def by_drift(step, steps, past, drift):
    return not past or drift > 2


def test_data_reach_the_method_as_signal_velocity_levels_and_grid():
    shown = []

    def drift(context):
        shown.append(context)
        return float(len(shown))

    model = Small(Multiply(), Block())
    model.config = SimpleNamespace(in_channels=1, patch_size=1)
    hook, scheduler = put_on(model, method(schedule=by_drift, drift=drift, signal="latents"))
    assert walk(model, scheduler, [1, 2, 3, 4]) == [310.5, 310.5, 910.5, 1210.5]
    assert [(numbers(c.previous), numbers(c.signal)) for c in shown] == [(1, 2), (2, 3), (3, 4)]
    assert [[numbers(v) for _, v in c.at_runs] for c in shown] == [[310.5], [310.5], [310.5, 910.5]]
    levels = [(0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25)]
    assert [c.levels for c in shown] == [(levels[i + 1], levels[i]) for i in range(3)]
    assert {c.grid for c in shown} == {(2, 2)} and hook.report()["branch 0"]["run_steps"] == [0, 2, 3]


def test_forecasts_are_made_on_the_methods_clock():
    asked = []

    def spy(times, now, span):
        asked.append((list(times), now, span))
        return [1 / len(times)] * len(times)

    model = Small(Multiply())
    hook, scheduler = put_on(model, method(forecast=spy, clock="sigma"))
    walk(model, scheduler, [1, 2, 3, 4])
    own = ([1.0], 0.75, (0.0, 1.0)), ([1.0, 0.5], 0.25, (0.0, 1.0))
    assert asked[-4:] == [*own, *own], "once for the plan, once in the run"
    assert hook.report()["branch 0"]["cache_bytes"] == 2 * 4 * 4


def test_the_steps_of_a_scheduler_without_an_index_are_told_by_the_timestep():
    model, scheduler = Small(), steps()
    del scheduler.step_index
    hook, _ = put_on(model, method(), scheduler=scheduler)
    outputs = [numbers(model(latents(i + 1), timestep=time)[0]) for i, time in enumerate(scheduler.timesteps)]
    assert outputs == [1210.5, 1210.5, 3010.5, 3010.5] and hook.report()["branch 0"]["run_steps"] == [0, 2]
    assert hook.report()["branch 0"]["cache_bytes"] == 4 * 4, "reuse needs the newest feature alone"


class Cached(CacheMixin, Small):
    """A denoiser to which a pipeline says the name of the CFG branch."""


def test_branches_have_the_names_that_the_pipeline_gives_them():
    model, same = Cached(), torch.zeros(1)
    hook, scheduler = put_on(model, method())
    for scheduler.step_index in range(2):
        for name, value in (("cond", 1), ("uncond", 2)):
            with model.cache_context(name):
                assert numbers(model(latents(value), encoder_hidden_states=same)[0]) == 900 * value + 310.5
    assert list(hook.report()) == ["cond", "uncond"]


def test_conditioning_tensors_are_held_so_that_two_of_a_step_are_never_taken_for_one():
    model = Small()
    hook, _ = put_on(model, method())
    for value in range(8):
        model(latents(value), encoder_hidden_states=torch.zeros(1))
    assert len(hook.report()) == 8


def test_a_correction_is_given_forecast_newest_feature_and_grid():
    asked = []

    def correct(value, newest, grid):
        asked.append((numbers(value), numbers(newest), grid))
        return value + 1

    model = Small()
    model.config = SimpleNamespace(in_channels=1, patch_size=1)
    _, scheduler = put_on(model, method(correct=correct))
    assert walk(model, scheduler, [1, 2]) == [1210.5, 1211.5] and asked == [(1210, 1210, (2, 2))]


def test_an_observer_is_told_of_the_steps_that_ran_and_only_at_the_exit():
    model, told = Small(), []
    _, scheduler = put_on(model, method(), observe=told.append)
    walk(model, scheduler, [1, 2, 3], timestep=7)
    assert [(o.branch, o.step, numbers(o.entry), numbers(o.feature), numbers(o.velocity)) for o in told] == [
        ("branch 0", 0, 1, 1210, 1210.5),
        ("branch 0", 2, 3, 3010, 3010.5),
    ]
    assert [set(o.inputs) for o in told] == [{"hidden_states", "timestep"}] * 2
    for site in ("output", "modules"):
        model = Small()
        put_on(model, method(site=site), observe=told.append)
        says = rf"^mine stores at method.site={site}: only site=exit can be observed$"
        with pytest.raises(SpectrumError, match=says):
            model(latents(1))


def test_nan_is_refused_at_its_step():
    model = Small()
    hook, scheduler = put_on(model, method())
    walk(model, scheduler, [1, 2])
    scheduler.step_index = 2
    with pytest.raises(SpectrumError, match=r"^the denoiser gave NaN or infinite values at step 2"):
        model(latents(float("nan")))
    hook.remove()
    hook, scheduler = put_on(model, method(correct=lambda value, newest, grid: value / 0))
    model.config = SimpleNamespace(in_channels=1, patch_size=1)
    with pytest.raises(SpectrumError, match=r"with the forecast feature the denoiser gave .* at step 1"):
        walk(model, scheduler, [1, 2])


def test_on_an_accelerator_nan_is_refused_at_the_end_of_the_run():
    class Elsewhere(torch.Tensor):
        """A tensor that says it lies on an accelerator, where reading a flag would stall the run."""

        device = torch.device("cuda")

    model = Small()
    model.norm_out.register_forward_hook(lambda module, args, output: output.as_subclass(Elsewhere))
    _, scheduler = put_on(model, method(schedule=always))
    for scheduler.step_index in range(3):
        model(latents(float("nan")))
    scheduler.step_index = 3
    with pytest.raises(SpectrumError, match=r"^the denoiser gave NaN or infinite values at step 0"):
        model(latents(1))
