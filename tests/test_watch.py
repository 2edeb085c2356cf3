"""Where a loop of a pipeline ends, features are freed; what others do with its denoiser is not in its report."""

import pytest
import torch

from spectrum import accelerate
from spectrum.hooks.trajectory import Loops
from spectrum.models.toy_pipelines import toy_pipelines
from spectrum.models.watch import WatchedBar

TOYS = toy_pipelines()


def called(toy, pipe, **changes):
    with torch.no_grad():
        return pipe(**{**toy.arguments(pipe), **changes})


@pytest.mark.parametrize("name", ["AudioLDMPipeline", "LDMTextToImagePipeline", "SemanticStableDiffusionPipeline"])
def test_features_are_freed_after_the_loop_of_a_pipeline_that_resets_no_hooks(name):
    toy = TOYS[name]
    pipe = toy.build()
    with accelerate(pipe, "fora", schedule=[0, 3, 7]) as handle:
        for _ in range(2):
            called(toy, pipe)
            assert not handle.hooks[0].running
            assert {tuple(branch["run_steps"]) for branch in handle.report().values()} == {(0, 3, 7)}


@pytest.mark.parametrize("disabled", [False, True])
@pytest.mark.parametrize("name", ["FluxPipeline", "FluxModularPipeline"])
def test_features_are_freed_after_an_error_outside_the_denoiser(name, disabled, monkeypatch):
    toy = TOYS[name]
    pipe = toy.build()
    pipe.set_progress_bar_config(disable=disabled)
    with accelerate(pipe, "fora") as handle:

        def broken(*args, **kwargs):
            assert handle.hooks[0].running
            raise KeyboardInterrupt

        monkeypatch.setattr(pipe.scheduler, "step", broken)
        with pytest.raises(KeyboardInterrupt):
            called(toy, pipe)
        assert not handle.hooks[0].running
    assert "progress_bar" not in vars(pipe)


def test_calls_of_another_pipeline_on_the_same_denoiser_are_no_sections():
    toy = TOYS["FluxPipeline"]
    pipe = toy.build()
    other = type(pipe)(**pipe.components)
    with accelerate(pipe, "fora", schedule=[0, 3, 7]) as handle:
        for sampled in (pipe, other, other, pipe):
            steps = 8 if sampled is pipe else 9
            called(toy, sampled, num_inference_steps=steps)
            (report,) = handle.report().values()
            assert len(report["run_steps"]) + len(report["skipped"]) == steps and not handle.hooks[0].running


class Bar:
    """A progress bar that counts how often it was closed."""

    def __init__(self):
        self.total, self.closed = 3, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed += 1

    def __iter__(self):
        return iter(range(self.total))

    def __len__(self):
        return self.total

    def close(self):
        self.closed += 1


def test_a_watched_bar_is_as_the_bar_and_tells_once_it_is_over():
    ends = []
    bar = WatchedBar(Bar(), lambda: ends.append(None))
    assert list(bar) == [0, 1, 2] and len(bar) == bar.total == 3 and len(ends) == 1
    with bar as inner:
        assert type(inner) is Bar and len(ends) == 1
    assert bar.closed == 1 and len(ends) == 2
    bar.close()
    assert bar.closed == 2 and len(ends) == 3
    taken = iter(bar)
    next(taken)
    del taken  # as after an error in the loop
    assert len(ends) == 4


def test_an_inner_bar_ends_nothing():
    toy = TOYS["FluxPipeline"]
    pipe = toy.build()
    with accelerate(pipe, "fora") as handle:

        def inner(pipe, step, timestep, found):
            for _ in pipe.progress_bar([1, 2]):
                assert handle.hooks[0].running
            assert handle.hooks[0].running
            return found

        called(toy, pipe, callback_on_step_end=inner)
        assert list(handle.report()) == ["cond"] and handle.report()["cond"]["run_steps"] == [0, 3, 7]
        assert not handle.hooks[0].running


def test_hooks_that_are_reset_in_mid_call_end_the_call_where_nobody_tells_its_end_alone():
    """Modular Cosmos 3 resets them before each chunk of a video."""
    for ends, sections in ((True, 2), (False, 1)):
        loops = Loops()
        loops.begin_call(ends)
        loops.add({"cond": 1})
        loops.end_call(by_reset=True)
        loops.add({"cond": 2})
        assert len(loops.reports(None)) == sections
        loops.end_call()
        loops.add({"cond": 3})
        assert loops.reports(None) == [{"cond": 3}]


def test_the_bar_of_an_earlier_loop_that_is_closed_late_ends_nothing():
    toy = TOYS["FluxPipeline"]
    pipe = toy.build()
    with accelerate(pipe, "fora") as handle:
        late = pipe.progress_bar(total=8)

        def close(pipe, step, timestep, found):
            late.close()
            assert handle.hooks[0].running
            return found

        called(toy, pipe, callback_on_step_end=close)
        assert list(handle.report()) == ["cond"] and handle.report()["cond"]["run_steps"] == [0, 3, 7]
