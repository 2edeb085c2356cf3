"""Item 6 of what a first user met: what `accelerate` takes, what it refuses, and what its handle says."""

import numpy as np
import pytest
import torch

from spectrum import Clock, Denoiser, Method, Site, Space, SpectrumError, accelerate
from spectrum.core.forecast import reuse
from spectrum.core.given_schedule import given_schedule
from spectrum.core.schedule import growing_window, needs_drift

STEPS = [0, 1, 2, 5, 9]
LISTS = {
    "list": STEPS,
    "tuple": tuple(STEPS),
    "set": set(STEPS),
    "array": np.array(STEPS),
    "tensor": torch.tensor(STEPS),
    "function": lambda s, n, ran: s in STEPS,
    "function of one argument": lambda now: now in STEPS,
    "function of any arguments": lambda *given: given[0] in STEPS,
    "function that looks at the runs": lambda i, total, done: not done or i in (1, 2) or i == done[-1] + 3 + (i > 5),
    "numpy truth": lambda i: np.isin(i, STEPS)[()],
}


@pytest.mark.parametrize("given", [*LISTS, "generator"])
def test_6_accelerate_takes_a_schedule_in_any_form(flux, given):
    schedule = (step for step in STEPS) if given == "generator" else LISTS[given]
    with accelerate(flux.pipe, "taylorseer", schedule=schedule) as handle:
        assert handle.plan(12).runs == STEPS
        if given == "array":
            flux.sample()
            assert [branch["run_steps"] for branch in handle.report().values()] == [STEPS]


def test_6_ranges_runs_and_whole_methods(flux):
    with accelerate(flux.pipe, "fora", schedule=range(0, 12, 4)) as handle:
        assert handle.plan(12).runs == [0, 4, 8]
    with accelerate(flux.pipe, "spectrum", runs=14) as handle:
        assert handle.plan(50).nfe == 14
    with accelerate(flux.pipe, "fora", schedule="fixed_interval") as handle:
        assert handle.plan(50).runs == [0, 1, *range(2, 50, 4)]
    with accelerate(flux.pipe, Method("mine", reuse), schedule=[0, 3]) as handle:
        assert handle.plan(5).runs == [0, 3]


REFUSED = [
    (lambda pipe: accelerate(pipe, "fora", schedule={0: True}), "cannot be used: give a list"),
    (lambda pipe: accelerate(pipe, "fora", schedule=3), "cannot be used: give a list"),
    (lambda pipe: accelerate(pipe, "fora", schedule=[0, 1.5]), "something else than whole numbers"),
    (lambda pipe: accelerate(pipe, "fora", schedule=np.array([True, False])), "has truth values"),
    (lambda pipe: accelerate(pipe, "fora", schedule="no_such"), "there is no schedule=no_such"),
    (lambda pipe: accelerate(pipe, "fora", schedule=lambda a, b, c, d: True), "takes (step, steps, runs)"),
    (lambda pipe: accelerate(pipe, "fora", schedule=lambda a, *, b: True), "needs b="),
    (lambda pipe: accelerate(pipe, "fora", schedule=lambda: True), "takes (step, steps, runs)"),
    (lambda pipe: accelerate(pipe, "fora", schedule=lambda s: "yes").plan(5), "this one returned 'yes'"),
    (lambda pipe: accelerate(pipe, "fora", schedule=lambda s: 1 / 0).plan(5), "failed at step 0: ZeroDivisionError"),
    (lambda pipe: accelerate(pipe, "fora", schedule=[1, 2]).plan(5), "must start with step 0"),
    (lambda pipe: accelerate(pipe, "fewer_steps"), "call the pipeline with num_inference_steps=14"),
    (lambda pipe: accelerate(pipe, "fora", "schedule.interval"), "'schedule.interval' is no key=value"),
    (lambda pipe: accelerate(pipe, "fora", "schedule.intervall=3"), "did you mean schedule.interval?"),
    (lambda pipe: accelerate(pipe, "foro"), "did you mean method=fora?"),
    (lambda pipe: accelerate(pipe, Method("mine", reuse), runs=14), "go with a method's name"),
]


@pytest.mark.parametrize(("attempt", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_6_accelerate_refuses_what_it_cannot_use(flux, attempt, says):
    with pytest.raises(SpectrumError) as caught:
        attempt(flux.pipe)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_6_the_handle_says_what_it_is(flux):
    with accelerate(flux.pipe, "spectrum") as handle:
        for word in ("spectrum", "FluxPipeline", "FluxTransformer2DModel", "exit", "feature"):
            assert word in repr(handle)
    assert "nothing any more" in repr(handle)


def test_6_settings_of_a_method_are_checked_and_their_names_taken():
    method = Method("mine", reuse, growing_window, space="residual", site="output", clock="sigma")
    assert (method.space, method.site, method.clock) == (Space.residual, Site.output, Clock.sigma)
    with pytest.raises(SpectrumError, match=r"method\.site=nonsense is unknown: type one of exit, output, modules"):
        Method("mine", reuse, growing_window, site="nonsense")
    for schedule in (max, lambda a, b, c: True):
        with pytest.raises(SpectrumError, match=r"accelerate\(schedule="):
            Method("mine", reuse, schedule)


def test_6_what_a_given_schedule_would_silence_is_refused(flux):
    for words, more in ((("schedule.growth=3.0",), {}), ((), {"runs": 10})):
        with pytest.raises(SpectrumError, match="takes the place of the method's own"):
            accelerate(flux.pipe, "spectrum", *words, schedule=[0, 1, 2, 3, 4, 9], **more)
    for method in (3, None):
        with pytest.raises(SpectrumError, match="neither a Method nor a name"):
            accelerate(flux.pipe, method)


def test_6_a_fit_does_not_bind_a_schedule_of_time(_tiny):
    with accelerate(_tiny, "teacache", schedule=[0, 1, 2, 5]) as handle:
        assert handle.method.fitted_steps is None


def test_6_a_schedule_function_gets_the_drift_by_its_name():
    given = given_schedule(lambda s, drift: s == 0 or drift > 0.5)
    assert needs_drift(given) and given(3, 10, [0], 0.6) and not given(3, 10, [0], 0.4)


@pytest.mark.parametrize("layout", [Denoiser(exit="nope"), Denoiser(exit="norm_out", stacks=("nope",))])
def test_6_a_layout_that_names_what_is_not_there_is_refused_and_leaves_nothing(flux, layout):
    hooks = [len(m._forward_pre_hooks) for m in flux.model.modules()]
    with pytest.raises(SpectrumError, match="has no module nope, which its layout names; it has"):
        accelerate(flux.pipe, "first_block_cache", denoiser=layout)
    assert [len(m._forward_pre_hooks) for m in flux.model.modules()] == hooks
