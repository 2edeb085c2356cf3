"""Timing against a clock that only the blocks advance: by one second for each block that runs."""

import dataclasses

import pytest
from cases import PROMPTS, STEPS, method_of, subject_of

from spectrum.bench import timing
from spectrum.config.sampling import Sampling
from spectrum.core.errors import SpectrumError
from spectrum.models.layouts import denoiser_of

BLOCKS = 5
HEAD = 0.25
"""Seconds of the denoiser's head, which runs at every step."""


@pytest.fixture
def subject(monkeypatch):
    """FLUX's toy of two and three blocks, on the fake clock."""
    found = subject_of("flux")
    now = {"seconds": 100.0}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now["seconds"])

    def advance(by):
        def hook(*args):
            now["seconds"] += by

        return hook

    model = found.pipe.transformer
    blocks = [block for name in denoiser_of(model).stacks for block in getattr(model, name)]
    handles = [block.register_forward_pre_hook(advance(1.0)) for block in blocks]
    handles.append(model.proj_out.register_forward_pre_hook(advance(HEAD)))
    handles.append(found.pipe.vae.decoder.register_forward_pre_hook(advance(7.0)))
    yield found
    for handle in handles:
        handle.remove()


def test_seconds_are_those_of_the_denoiser_and_of_the_whole_call(subject):
    seconds = timing.time_call(subject.pipe, method_of("none"), PROMPTS[:2], Sampling.of(subject.config))
    assert seconds == {"denoise": STEPS * (BLOCKS + HEAD), "total": STEPS * (BLOCKS + HEAD) + 7.0}


def test_the_speed_up_is_uncached_over_cached(subject):
    sampling = Sampling.of(subject.config)
    method = method_of("spectrum")
    runs = 7
    told = []
    sides = (method_of("none"), sampling), (method, sampling)
    found = timing.compare(subject.pipe, *sides, PROMPTS[:2], 3, told.append)
    assert told == [2 * STEPS] * 8
    full, cached = STEPS * (BLOCKS + HEAD), runs * BLOCKS + STEPS * HEAD
    assert found["speedup"] == pytest.approx(full / cached) and found["speedup"] > 1
    assert found["speedup_end_to_end"] == pytest.approx((full + 7) / (cached + 7))
    assert found["batch"] == 2 and found["repeats"] == 3
    assert [len(calls) for calls in found["raw"].values()] == [3, 3]
    assert found["seconds_per_sample"]["candidate"]["denoise"] == pytest.approx(cached / 2)
    assert found["seconds_per_sample"]["baseline"]["total"] == pytest.approx((full + 7) / 2)


def test_a_control_is_timed_with_its_own_solver(subject):
    unknown = dataclasses.replace(Sampling.of(subject.config), solver="NoSuchScheduler")
    with pytest.raises(SpectrumError, match="NoSuchScheduler is no scheduler of diffusers"):
        timing.time_call(subject.pipe, method_of("none"), PROMPTS[:2], unknown)


def test_the_uncached_run_itself_is_timed_once(subject):
    sampling = Sampling.of(subject.config)
    found = timing.compare(subject.pipe, (method_of("none"), sampling), (method_of("none"), sampling), PROMPTS[:2], 2)
    assert found["speedup"] == 1 and found["raw"]["baseline"] is found["raw"]["candidate"]
