"""Pipelines that step their scheduler twice at each step, as Cosmos 1 does: two calls are one step."""

from types import SimpleNamespace

import pytest
import torch
from cases import PROMPTS, STEPS, subject_of
from diffusers import DDIMScheduler

from spectrum.bench.sampling import sample_batch
from spectrum.config.sampling import Sampling
from spectrum.core.method import Site
from spectrum.hooks.replaced import replaced
from spectrum.hooks.scheduler import steps_again
from spectrum.planning.player import Play, Player
from spectrum.planning.rollout import Rollouts


@pytest.fixture(scope="module")
def cosmos():
    return subject_of("cosmos_video")


@pytest.mark.parametrize(
    ("left_at", "now", "again"), [(None, None, False), (None, 0, False), (1, 1, False), (1, 0, True), (5, 3, False)]
)
def test_a_scheduler_that_was_set_back_by_a_step_steps_again(left_at, now, again):
    assert steps_again(SimpleNamespace(step_index=now), left_at) is again


def test_one_without_a_step_index_never_does():
    assert not steps_again(DDIMScheduler(), None) and not steps_again(DDIMScheduler(), 1)


def test_each_step_is_told_once(cosmos):
    told = []
    sample_batch(cosmos.pipe, PROMPTS[:2], Sampling.of(cosmos.config), lambda: told.append(None))
    assert len(told) == STEPS


def test_a_rollout_has_the_latents_of_each_step_and_ends_there(cosmos):
    """Each is that of the second call: the first one's are those of both CFG branches without guidance."""
    given, ran = [], []
    with Player(cosmos.pipe, Site.exit) as player:

        def step(original, *args, **kwargs):
            given.append(args[2].flatten(1))
            return original(*args, **kwargs)

        with replaced(cosmos.pipe.scheduler, "step", step):
            rollouts = Rollouts(player, cosmos.sample)
        assert rollouts.steps == STEPS and len(given) == 2 * STEPS and rollouts.count == 2
        for number, latents in enumerate(rollouts.reference[:-1]):
            assert torch.equal(latents, given[2 * number + 1]) and len(given[2 * number]) == 4
        for end in (1, 4, STEPS):
            ran.clear()
            handle = cosmos.pipe.transformer.register_forward_hook(lambda *args: ran.append(None))
            latents, returned = player.played(cosmos.sample, Play(runs=range(STEPS)), end)
            handle.remove()
            assert len(ran) == 2 * end and returned is None and len(latents) == end + 1
            assert torch.equal(latents[end], rollouts.reference[end])


def test_latents_can_be_forced_there(cosmos):
    with Player(cosmos.pipe, Site.exit) as player:
        rollouts = Rollouts(player, cosmos.sample)
        off = torch.ones_like(rollouts.reference[4])
        play = Play(runs=range(STEPS), forced={4: rollouts.reference[4] + off})
        latents, _ = player.played(cosmos.sample, play, 5)
        assert torch.equal(latents[4], rollouts.reference[4] + off)
        assert torch.equal(latents[3], rollouts.reference[3]) and not torch.equal(latents[5], rollouts.reference[5])
        assert (rollouts.growth(STEPS - 1, off) < 2).all()
