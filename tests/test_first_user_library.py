"""Item 6 of what a first user met: what `accelerate` takes, what it refuses, and what its handle says."""

import numpy as np
import pytest
import torch

from spectrum import Method, SpectrumError, accelerate
from spectrum.core.forecast import reuse

STEPS = [0, 1, 2, 5, 9]
LISTS = {
    "list": STEPS,
    "tuple": tuple(STEPS),
    "set": set(STEPS),
    "array": np.array(STEPS),
    "tensor": torch.tensor(STEPS),
    "generator": (step for step in STEPS),
    "function": lambda s, n, ran: s in STEPS,
    "function of one argument": lambda now: now in STEPS,
    "function of any arguments": lambda *given: given[0] in STEPS,
    "function that looks at the runs": lambda i, total, done: not done or i in (1, 2) or i == done[-1] + 3 + (i > 5),
    "numpy truth": lambda i: np.isin(i, STEPS)[()],
}


@pytest.mark.parametrize("given", LISTS)
def test_6_accelerate_takes_a_schedule_in_any_form(flux, given):
    with accelerate(flux.pipe, "taylorseer", schedule=LISTS[given]) as handle:
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
