"""Searches for run steps. Each planner is called as `planner(evaluate, steps, runs, seed, **parameters)`:

Args:
    evaluate: the score of a tuple of run steps, the more the better, see `spectrum.planning.evaluate`.
    steps: number of denoising steps.
    runs: number of run steps.
    seed: of the random moves.

Returns:
    The run steps, ascending; the first is 0.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from spectrum.core.errors import check_number, refuse
from spectrum.planning.evaluate import Evaluate
from spectrum.planning.scores import shortest

Runs = tuple[int, ...]
Score = Callable[[Sequence[int]], float]
NEAR = 3
"""How far a near move goes, in steps."""


def check_budget(steps: int, runs: int) -> None:
    """Refuse a number of runs that no schedule of so many steps has.

    Raises:
        SpectrumError: below 2 or above `steps`.
    """
    check_number("runs", runs, low=2, integer=True)
    if runs > steps:
        refuse(f"runs={runs} is more than the {steps} steps: type runs= between 2 and {steps}")


def check_steps(counted: int, steps: int) -> None:
    """Refuse a pipeline that does not step its scheduler once for each of the steps that it was asked for.

    Args:
        counted: how often it did.
        steps: how many steps it was asked for.

    Raises:
        SpectrumError: if these differ, as with solvers of two calls a step, and with runs that start in the middle.
    """
    if counted != steps:
        refuse(f"the pipeline steps its scheduler {counted} times for {steps} steps: a plan needs one each")


def spread(steps: int, runs: int, power: float = 1.6) -> Runs:
    """Run steps that lie dense at the beginning: `round((i / runs)^power steps)`, moved apart where they meet.

    Example:
        >>> spread(50, 10)
        (0, 1, 4, 7, 12, 16, 22, 28, 35, 42)
    """
    found: list[int] = []
    for number in range(runs):
        step = round((number / runs) ** power * steps)
        found.append(max(step, found[-1] + 1) if found else 0)
    return tuple(min(step, steps - runs + number) for number, step in enumerate(found))


def given(evaluate: Score, steps: int, runs: int, seed: int, *, run_steps: Sequence[int] = ()) -> Runs:
    """Search nothing.

    Args:
        evaluate: not used.
        steps: see the module.
        runs: see the module.
        seed: not used.
        run_steps: the run steps; by default those of `spread`.
    """
    check_budget(steps, runs)
    if run_steps and len(run_steps) != runs:
        refuse(f"planner.run_steps has {len(run_steps)} steps, and runs={runs}: type runs={len(run_steps)}")
    return tuple(run_steps) or spread(steps, runs)


def moved(runs: Runs, steps: int, random: np.random.Generator, near: float = 0.85, two: float = 0.1) -> Runs:
    """A neighbour of a schedule: one run moved, sometimes two, mostly by a few steps.

    Args:
        runs: the run steps; the first stays.
        steps: number of denoising steps.
        random: draws the move.
        near: how often a run moves by at most `NEAR` steps; otherwise it goes anywhere.
        two: how often two runs move.
    """
    if len(runs) == steps or len(runs) == 1:
        return runs
    while True:
        kept = set(runs)
        for _ in range(2 if random.random() < two and len(runs) > 2 else 1):
            old = int(random.choice(sorted(kept - {0})))
            if random.random() < near:
                new = old + int(random.choice([d for d in range(-NEAR, NEAR + 1) if d]))
            else:
                new = int(random.integers(1, steps))
            kept = (kept - {old}) | {new}
        found = tuple(sorted(kept))
        if len(found) == len(runs) and found[0] == 0 and found[1] > 0 and found[-1] < steps and found != runs:
            return found


def hill_climbing(
    evaluate: Score, steps: int, runs: int, seed: int, *, tries: int = 100, start: Sequence[int] | None = None
) -> Runs:
    """Take every move that scores better.

    Args:
        evaluate: see the module.
        steps: see the module.
        runs: see the module.
        seed: see the module.
        tries: how many schedules are scored.
        start: the run steps to begin with; by default `spread`.
    """
    check_budget(steps, runs)
    random = np.random.default_rng(seed)
    here = spread(steps, runs) if start is None else tuple(start)
    score, seen = evaluate(here), {here}
    most = math.comb(steps - 1, runs - 1)
    while len(seen) < min(tries, most):
        there = moved(here, steps, random)
        if there in seen:
            continue
        seen.add(there)
        found = evaluate(there)
        if found > score:
            here, score = there, found
    return here


def traced(
    evaluate: Evaluate,
    steps: int,
    runs: int,
    seed: int,
    *,
    emphases: Sequence[float] = (1.0,),
    kind: str = "fitted",
    tries: int = 0,
) -> Runs:
    """The shortest paths by the score without sampling, and of these the one that does best when it is sampled.

    A gap costs how far from the uncached run it lands, from the uncached run, with fitted weights, times the gain of
    an error there to the power of an emphasis, squared. See `spectrum.planning.scores`.

    Args:
        evaluate: see the module; also has what the score is made of.
        steps: see the module.
        runs: see the module.
        seed: see the module; of the moves after it.
        emphases: how much the gain counts: below 1 for a better mean, above for fewer lost samples. Each gives a
            schedule.
        kind: how a gap's cost is worked out, see `spectrum.planning.scores.Traced.table`.
        tries: moves of hill-climbing from what was found.
    """
    check_budget(steps, runs)
    own = evaluate.traced()
    found = sorted({shortest(own.table(kind, emphasis), runs) for emphasis in emphases})
    best = max(found, key=evaluate) if len(found) > 1 else found[0]
    return hill_climbing(evaluate, steps, runs, seed, tries=tries, start=best) if tries else best


def path(
    evaluate: Evaluate, steps: int, runs: int, seed: int, *, width: int = 3, reach: int = 20, tries: int = 0
) -> Runs:
    """Dynamic programming in the loop: of all beginnings with so many runs that end at a step, the nearest ones go on.

    How near the uncached run a beginning lands at a later step needs no run of the blocks there, so a beginning tells
    in one go how well each of the next `reach` steps would do as its next run. Beginnings are compared only where they
    have run as often and land at the same step, so that no gain of an error has to be known.

    Args:
        evaluate: see the module; also says how near the uncached run a beginning lands.
        steps: see the module.
        runs: see the module.
        seed: see the module; of the moves after it.
        width: how many beginnings go on for each step and number of runs.
        reach: how far the next run may be, in steps; at least three times the mean distance.
        tries: moves of hill-climbing from what was found.
    """
    check_budget(steps, runs)
    reach = max(reach, math.ceil(3 * steps / runs))
    layer: list[Runs] = [(0,)]
    for count in range(1, runs):
        landed: dict[int, list[tuple[float, Runs]]] = {}
        for prefix in layer:
            ends = range(prefix[-1] + 1, min(prefix[-1] + reach, steps) + 1)
            for end, score in zip(ends, evaluate.landed(prefix, ends), strict=True):
                if end <= steps - (runs - count):
                    landed.setdefault(end, []).append((-score, prefix))
        layer = [(*prefix, end) for end, own in sorted(landed.items()) for _, prefix in sorted(own)[:width]]
    final = {prefix: evaluate.landed(prefix, [steps])[0] for prefix in layer if prefix[-1] + reach >= steps}
    found = max(final, key=lambda prefix: final[prefix])
    return hill_climbing(evaluate, steps, runs, seed, tries=tries, start=found) if tries else found


def annealing(
    evaluate: Score,
    steps: int,
    runs: int,
    seed: int,
    *,
    iterations: int = 200,
    hot: float = 0.05,
    cold: float = 1e-5,
    rounds: int = 20,
) -> Runs:
    """BudCache's search: simulated annealing from a random start, then steepest hill-climbing.

    The first `max(1, runs // 4)` steps always run. Nine of ten moves take one run, seven of ten of these by at most
    three steps, the tenth two runs. The temperature falls geometrically, and is compared with the relative error of the
    final latents, `10^(-dB / 10)`.

    Args:
        evaluate: see the module.
        steps: see the module.
        runs: see the module.
        seed: see the module.
        iterations: moves of the annealing.
        hot: the first temperature.
        cold: the last.
        rounds: of hill-climbing, at most; each scores every run's moves by at most three steps, and two jumps of each.
    """
    check_budget(steps, runs)
    random = np.random.default_rng(seed)
    fixed = tuple(range(max(1, runs // 4)))
    free = random.choice(np.arange(len(fixed), steps), runs - len(fixed), replace=False)
    here: Runs = (*fixed, *sorted(int(step) for step in free))

    def error(candidate: Runs) -> float:
        return 10 ** (-evaluate(candidate) / 10)

    value = error(here)
    top, least = here, value
    for number in range(iterations):
        heat = hot * (cold / hot) ** (number / max(1, iterations - 1))
        there = moved(here, steps, random, near=0.7)
        if there[: len(fixed)] != fixed:
            continue
        found = error(there)
        if found <= value or random.random() < math.exp((value - found) / heat):
            here, value = there, found
        if value < least:
            top, least = here, value
    for _ in range(rounds):
        around = {there for there in _around(top, steps, random) if there[: len(fixed)] == fixed}
        better = min(around, key=error, default=top)
        if error(better) >= least:
            break
        top, least = better, error(better)
    return top


def _around(runs: Runs, steps: int, random: np.random.Generator, jumps: int = 2) -> Iterator[Runs]:
    """The schedules with one run moved by at most `NEAR` steps, and some with one moved anywhere."""
    for number in range(1, len(runs)):
        near = [runs[number] + d for d in range(-NEAR, NEAR + 1) if d]
        for new in (*near, *(int(step) for step in random.integers(1, steps, jumps))):
            if 0 < new < steps and new not in runs:
                yield tuple(sorted({*runs[:number], *runs[number + 1 :], new}))
