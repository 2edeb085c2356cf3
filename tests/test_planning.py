"""Plans: rollouts play what the method will do, and weights are the least-squares ones."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from toys import toy_flux

from spectrum.api import Accelerated
from spectrum.core.errors import SpectrumError
from spectrum.core.method import Method, Site
from spectrum.core.planned import planned
from spectrum.core.schedule import explicit
from spectrum.hooks.replaced import replaced
from spectrum.planning.evaluate import Evaluate
from spectrum.planning.fit import ended, extended, first, fitted
from spectrum.planning.gain import gain_of
from spectrum.planning.gap import Settings, fit_gap, landings
from spectrum.planning.journal import Journal
from spectrum.planning.least_squares import Normal, best_ridge, folds_of
from spectrum.planning.make import make
from spectrum.planning.planners import traced
from spectrum.planning.player import Player
from spectrum.planning.rollout import Rollouts
from spectrum.planning.scores import shortest

STEPS, RUNS = 8, (0, 1, 3, 5)


@pytest.fixture
def toy():
    return toy_flux()


def rollouts_of(toy, site, batches=1, **call):
    player = Player(toy.pipe, site)
    return player, [
        Rollouts(player, functools.partial(toy.sample, steps=STEPS, batch=3, seed=seed, **call))
        for seed in range(batches)
    ]


def planned_method(runs, weights, site):
    forecast = functools.partial(planned, run_steps=list(runs), weights=weights)
    return Method("planned", forecast, functools.partial(explicit, run_steps=list(runs)), site=site)


@pytest.mark.parametrize(
    ("site", "settings", "cfg"),
    [
        (Site.output, Settings(), 1.0),
        (Site.exit, Settings(), 1.0),
        (Site.output, Settings(memory=2, shared=False), 3.0),
    ],
)
def test_a_rollout_plays_what_the_method_will_do(toy, site, settings, cfg):
    """The latents of the fit are those of a run with the plan, bit by bit, and the player leaves nothing behind."""
    call = {"steps": STEPS, "batch": 3, "cfg": cfg}
    plain = toy.sample(**call)
    player, rollouts = rollouts_of(toy, site, cfg=cfg)
    with player:
        evaluate = Evaluate(rollouts, settings)
        made = make(evaluate, lambda own: RUNS)
        whole, _ = evaluate.fitted(RUNS)
        pictures = rollouts[0].pictures(whole.features[0], whole.weights)
    assert torch.equal(rollouts[0].images, plain)
    own = planned_method(RUNS, made.weights, site)
    with Accelerated(
        toy.pipe, dataclasses.replace(own, memory=settings.memory, by_branch=not settings.shared)
    ) as handle:
        assert torch.equal(toy.sample(**call), pictures)
        assert all(branch["run_steps"] == list(RUNS) for branch in handle.report().values())
    assert torch.equal(toy.sample(**call), plain)


def test_a_plan_at_the_output_is_a_linear_multistep_solver_on_the_grid_of_its_run_steps(toy):
    """`x_n = x_r + (sigma_n - sigma_r) sum_k c_k v_k`, with the first step of each interval among the coefficients."""
    weights = {"": [[1.0], [-0.3, 1.3], [0.2, -0.7, 1.5], [-0.1, 1.1]]}
    scheduler, seen = toy.pipe.scheduler, []

    def step(original, velocity, timestep, sample, **more):
        result = original(velocity, timestep, sample, **more)
        seen.append((velocity.double(), sample.double(), result[0].double()))
        return result

    with Accelerated(toy.pipe, planned_method(RUNS, weights, Site.output)), replaced(scheduler, "step", step):
        toy.sample(steps=STEPS, batch=3)
    sigma = scheduler.sigmas.double()
    x, velocities = seen[0][1], []
    for run, end, own in zip(RUNS, [*RUNS[1:], STEPS], weights[""], strict=True):
        velocities.append(seen[run][0])
        first, gap, whole = sigma[run + 1] - sigma[run], sigma[end] - sigma[run + 1], sigma[end] - sigma[run]
        coefficients = gap / whole * torch.tensor(own, dtype=torch.float64)
        coefficients[-1] += first / whole
        newest = velocities[-len(own) :]
        x = x + whole * sum(c * v for c, v in zip(coefficients, newest, strict=True))
    assert torch.allclose(x, seen[-1][2], atol=1e-4) and not torch.allclose(x, seen[0][1], atol=1.0)


def test_weights_are_the_least_squares_ones(toy):
    """At the output the latents are linear in the weights: with no ridge no other weights land nearer."""
    player, rollouts = rollouts_of(toy, Site.output)
    with player:
        whole, _ = fitted(rollouts, RUNS, Settings(ridge=0.0, relative=0, memory=None))
        gap = whole.gaps[RUNS[-1]]
        target = rollouts[0].reference[-1].double().numpy()

        def landed(weights):
            own = {**whole.weights, RUNS[-1]: {"": list(weights)}}
            return rollouts[0].latents(whole.features[0], own, [STEPS])[0].double().numpy()

        zero = landed(np.zeros(len(RUNS)))
        moves = np.stack([(landed(unit) - zero).ravel() for unit in np.eye(len(RUNS))], 1)
        best = np.linalg.lstsq(moves, (target - zero).ravel(), rcond=None)[0]
    assert gap.weights[""] == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("settings", [Settings(), Settings(memory=1), Settings(shared=False), Settings(memory=2)])
def test_a_fit_lands_nearer_than_its_prior(toy, settings):
    player, rollouts = rollouts_of(toy, Site.output, cfg=3.0)
    with player:
        prior, before = fitted(rollouts, RUNS, Settings(fit=False, memory=settings.memory))
        whole, after = fitted(rollouts, RUNS, settings)
    assert after.mean() > before.mean()
    assert whole.gaps[1].landed.sum() < prior.gaps[1].landed.sum(), "the gap with the same features before it"
    names = {"cond", "uncond"} if not settings.shared else {""}
    assert all(set(gap.weights) == names for gap in whole.gaps.values())
    most = settings.memory or len(RUNS)
    assert all(len(own) <= most for gap in whole.gaps.values() for own in gap.weights.values())


def test_own_weights_of_the_branches_are_changes_of_the_shared_ones(toy, monkeypatch):
    """A ridge without end keeps these, none lets each branch have its own and lands nearer."""
    player, rollouts = rollouts_of(toy, Site.output, cfg=3.0)
    with player:
        prefix = extended(rollouts, first(rollouts), 2, Settings())
        shared = fit_gap(rollouts, prefix, 6, Settings())
        monkeypatch.setattr("spectrum.planning.gap.FAR", (1e12,))
        kept = fit_gap(rollouts, prefix, 6, Settings(shared=False)).weights
        monkeypatch.setattr("spectrum.planning.gap.FAR", (1e-9,))
        free = fit_gap(rollouts, prefix, 6, Settings(shared=False, relative=0))
    one = shared.weights[""]
    assert kept["cond"] == pytest.approx(one, abs=1e-3) and kept["uncond"] == pytest.approx(one, abs=1e-3)
    assert free.weights["cond"] != pytest.approx(free.weights["uncond"], abs=1e-2)
    assert free.landed.sum() < shared.landed.sum()


def test_equations_in_fewer_unknowns_are_those_of_what_moves_together():
    random = np.random.default_rng(0)
    responses, residual = random.normal(size=(4, 3, 50)), random.normal(size=(3, 50))
    ties = np.tile(np.eye(2), (2, 1))
    once = Normal.of(responses, residual).tied(ties)
    together = Normal.of(responses[:2] + responses[2:], residual)
    assert once.solved(0.01, np.ones(2)) == pytest.approx(together.solved(0.01, np.ones(2)))
    assert once.losses(np.ones(2)) == pytest.approx(together.losses(np.ones(2)))


@pytest.mark.parametrize("site", [Site.output, Site.exit])
def test_a_beginning_tells_how_each_end_would_land(toy, site):
    """As fits to each end do: at the output up to rounding; at the exit, where these take rounds, no nearer."""
    settings = Settings(ridge=1e-2, memory=2)
    player, rollouts = rollouts_of(toy, site)
    with player:
        prefix = extended(rollouts, first(rollouts), 2, settings)
        found = landings(rollouts, prefix, range(3, STEPS + 1), settings)
        for end in range(4, STEPS + 1):
            fit = fit_gap(rollouts, prefix, end, settings).landed
            if site is Site.output:
                assert found[end] == pytest.approx(fit, rel=1e-3)
            assert (found[end] > 0.9 * fit).all()
        assert found[3] == pytest.approx(ended(rollouts, prefix, 3, settings)[1], rel=1e-4)
        evaluate = Evaluate(rollouts, settings)
        (own,), value = evaluate.landed((0, 2), [STEPS]), evaluate((0, 2))
        assert own == pytest.approx(value, abs=0.05) if site is Site.output else own < value + 1


def test_samples_that_are_left_out_of_a_fit_do_not_change_it(toy):
    player, rollouts = rollouts_of(toy, Site.output, batches=2)
    with player:
        some, _ = fitted(rollouts, RUNS, Settings(ridge=1e-2, train=(0, 1, 2)))
        alone, _ = fitted(rollouts[:1], RUNS, Settings(ridge=1e-2))
    assert some.weights[RUNS[1]][""] == pytest.approx(alone.weights[RUNS[1]][""], abs=1e-5)


def test_normal_equations_add_up_over_samples():
    random = np.random.default_rng(0)
    responses, residual = random.normal(size=(3, 5, 40)), random.normal(size=(5, 40))
    normal = Normal.of(responses, residual)
    flat = responses.reshape(3, -1).T
    assert normal.solved(0.0, np.zeros(3)) == pytest.approx(np.linalg.lstsq(flat, residual.ravel(), rcond=None)[0])
    change = random.normal(size=3)
    off = residual - np.tensordot(change, responses, 1)
    assert normal.losses(change) == pytest.approx((off**2).sum(1))
    far = normal.solved(1e9, np.full(3, 7.0))
    assert far == pytest.approx([7.0] * 3, rel=1e-3)


def test_all_samples_of_a_prompt_are_left_out_together():
    """Otherwise a sample that is as good as in the fit would say how well the fit does on others."""
    prompts = np.array([0, 0, 1, 1, 2, 2])
    folds = folds_of(prompts, 2)
    assert [fold.tolist() for fold in folds] == [[0, 1, 2, 3], [4, 5]]
    random = np.random.default_rng(4)
    responses, residual = random.normal(size=(3, 4, 6)), random.normal(size=(4, 6))
    twice = Normal.of(np.repeat(responses, 2, 1), np.repeat(residual, 2, 0))
    once = Normal.of(responses, residual)
    pairs = np.arange(8) // 2
    assert best_ridge(twice, np.zeros(3), prompts=pairs) == best_ridge(once, np.zeros(3))
    assert best_ridge(twice, np.zeros(3)) < best_ridge(once, np.zeros(3))
    assert best_ridge(twice, np.zeros(3), prompts=np.zeros(8, int)) == 1e-2, "one prompt leaves none to be left out"


def test_the_ridge_is_the_one_that_fits_what_was_left_out():
    """Pure noise wants to stay at the prior, a linear response none of it."""
    random = np.random.default_rng(1)
    responses = random.normal(size=(3, 8, 50))
    noise = Normal.of(responses, 20 * random.normal(size=(8, 50)))
    line = Normal.of(responses, np.einsum("i,ise->se", [1.0, -2.0, 3.0], responses))
    assert best_ridge(line, np.zeros(3)) < 1e-4 < best_ridge(noise, np.zeros(3))


@pytest.mark.parametrize("site", [Site.output, Site.exit])
def test_the_gain_is_by_how_much_an_error_grows(toy, site):
    """An error that is half as large ends about half as far away, and the error is put in where it is said to be."""
    player, rollouts = rollouts_of(toy, site)
    with player:
        (part,) = rollouts
        off = 1e-2 * torch.randn(part.reference[0].shape, generator=torch.Generator().manual_seed(0))
        for step in (2, STEPS - 1):
            assert part.growth(step, off) == pytest.approx(part.growth(step, off / 2), rel=0.05)
        gain = gain_of(rollouts)
    assert gain.shape == (STEPS + 1,) and (gain > 0).all()
    assert part.moves == pytest.approx(toy.pipe.scheduler.sigmas.diff().numpy(), abs=1e-6)


def test_the_traced_planner_takes_the_best_of_its_paths_when_sampled(toy):
    player, rollouts = rollouts_of(toy, Site.output)
    with player:
        evaluate = Evaluate(rollouts, Settings())
        found = traced(evaluate, STEPS, 4, 0, emphases=(0.5, 0.75, 1.0))
        paths = {shortest(evaluate.traced().table(emphasis=own), 4) for own in (0.5, 0.75, 1.0)}
        assert found == max(sorted(paths), key=evaluate)
        assert traced(evaluate, STEPS, 4, 0) == shortest(evaluate.traced().table(), 4)
        assert evaluate.full_runs > 3 * (1 + 3 / STEPS), "measuring the gain is among the costs"


def test_a_journal_keeps_whole_lines_of_the_same_fit_alone(tmp_path):
    path = tmp_path / "a.journal"
    journal = Journal(path, "one")
    journal.add("0 1", [1.5, 2.5])
    with path.open("a") as file:
        file.write('{"scored": "0 2", "deci')
    again = Journal(path, "one")
    assert again.scores == {"0 1": [1.5, 2.5]}
    assert len(path.read_text().splitlines()) == 2
    assert not Journal(path, "another").scores


def test_what_was_scored_is_not_sampled_again(toy, tmp_path):
    player, rollouts = rollouts_of(toy, Site.output)
    with player:
        first = Evaluate(rollouts, Settings(), Journal(tmp_path / "j", "x"))
        value, cost = first(RUNS), first.full_runs
        again = Evaluate(rollouts, Settings(), Journal(tmp_path / "j", "x"))
        again.fitted = lambda runs: pytest.fail("it was scored before")
        assert again(RUNS) == value and again.full_runs == cost == 3 * (1 + 3 / STEPS)
        with pytest.raises(SpectrumError, match="begin with 0"):
            first((1, 2))


def test_prefixes_are_kept_as_far_as_their_features_fit(toy, monkeypatch):
    player, rollouts = rollouts_of(toy, Site.output)
    with player:
        evaluate = Evaluate(rollouts, Settings())
        value = evaluate(RUNS)
        assert {*evaluate._prefixes} == {RUNS[:count] for count in range(2, len(RUNS) + 1)}
        monkeypatch.setattr("spectrum.planning.evaluate.KEPT", 1)
        less = Evaluate(rollouts, Settings())
        assert less(RUNS) == value and len(less._prefixes) == 1


@pytest.mark.parametrize(
    ("times", "says"), [([0, 2], "step 2 ran: leave the schedule as it is"), ([1], "wants 2 features behind step 1")]
)
def test_a_plan_is_for_its_own_schedule(times, says):
    with pytest.raises(SpectrumError, match=says):
        planned(times, 3, (0, 8), run_steps=[0, 1], weights={"": [[1.0], [0.5, 0.5]]})
