"""Shows a plan's file, compares two, and says a plan's schedule in the words of other projects."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spectrum.core.errors import refuse
from spectrum.planning.exports import as_growing_window, computation_mask
from spectrum.records.plan_file import FITTED, PlanFile, changes, differences, read_plan

EXPORTS = ("cache-dit", "authors")
ILL_CONDITIONED = 1e8
"""A gap whose features are so nearly the same that the ridge decides between them."""


def show_plans(console: Console, text: str, export: str | None) -> None:
    """Show the plan in a file, or compare those in two.

    Args:
        console: where to.
        text: the file, or two with a comma between them.
        export: one of `EXPORTS`, to print the schedule of one plan for another project.

    Raises:
        SpectrumError: for a file that is no plan, and a schedule that the authors' settings cannot express.
    """
    plans = [read_plan(Path(word)) for word in text.split(",")]
    if len(plans) > 2 or (export is not None and len(plans) != 1):
        refuse("type plan=FILE, or plan=FILE,FILE to compare two; export= takes one")
    if export is not None:
        print(exported(plans[0], export))
    elif len(plans) == 1:
        for line in lines_of(plans[0]):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(weights_table(plans[0]))
    else:
        for line in compared(*plans):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def lines_of(plan: PlanFile) -> list[str]:
    """What a plan holds, for people."""
    setting, expected = plan.setting, plan.expected
    found = [
        f"{plan.name} of {setting.pipeline}, stored at the {plan.site}",
        f"run steps ({len(plan.run_steps)}): {' '.join(map(str, plan.run_steps))}",
        f"ideal speed-up: {setting.steps / len(plan.run_steps):.2f}x",
        f"made for: {setting.solver}, {setting.width}x{setting.height}, "
        + ", ".join(f"{key} {value}" for key, value in setting.call.items()),
        f"fitted on {plan.samples} samples, run steps by {_planner(plan)}, {_weights(plan)}",
    ]
    if expected is not None and expected.psnr is not None:
        half = "" if expected.interval is None else f" ± {expected.interval:.1f}"
        found.append(f"expected: {expected.psnr:.1f}{half} dB PSNR to the uncached run, on samples left out of the fit")
    found.append(f"cost: {plan.full_runs:.0f} uncached runs of a sample")
    worst = max(plan.conditions, default=1.0)
    if worst > ILL_CONDITIONED:
        found.append(f"a gap is ill-conditioned ({worst:.0e}): its features are nearly the same, and the ridge decides")
    return found


def card(plans: Sequence[PlanFile]) -> str:
    """The card of a folder of plans, as Markdown: what each holds, is worth, and was made by.

    Args:
        plans: the plans, all of one model.
    """
    lines = [
        "# Plans",
        "",
        "Run steps and weights that `spectrum fit` fitted on this model, for `method=planned`. Expected is the PSNR to",
        "the uncached run in dB with its 95 % interval, on calibration prompts that were left out of the fit of the",
        "weights; the search for the run steps has seen them. Cost is in uncached runs of one sample.",
        "",
        "| runs | run steps | expected | cost | made by |",
        "| ---: | --- | ---: | ---: | --- |",
    ]
    for plan in sorted(plans, key=lambda plan: (plan.setting.steps, len(plan.run_steps))):
        expected = "-"
        if plan.expected is not None and plan.expected.psnr is not None:
            half = "" if plan.expected.interval is None else f" ± {plan.expected.interval:.1f}"
            expected = f"{plan.expected.psnr:.1f}{half}"
        runs = f"{len(plan.run_steps)} / {plan.setting.steps}"
        command = f"python scripts/{plan.made_with.get('command', '')}"
        lines.append(
            f"| {runs} | {' '.join(map(str, plan.run_steps))} | {expected} | {plan.full_runs:.0f} | `{command}` |"
        )
    return "\n".join(lines) + "\n"


def _weights(plan: PlanFile) -> str:
    return "weights fitted" if plan.forecast == FITTED else f"weights of {plan.forecast}"


def _planner(plan: PlanFile) -> str:
    name = str(plan.planner.get("_target_", "")).rpartition(".")[2]
    return f"{name}, seed {plan.planner.get('seed', 0)}"


def weights_table(plan: PlanFile) -> Table:
    """The weights of each gap, newest last."""
    table = Table("gap", "branch", "sum w", "weights of the newest features, oldest first", box=None, pad_edge=False)
    ends = [*plan.run_steps[1:], plan.setting.steps]
    for branch, gaps in plan.weights.items():
        for begin, end, weights in zip(plan.run_steps, ends, gaps, strict=True):
            if end > begin + 1:
                shown = " ".join(f"{weight:.3f}" for weight in weights)
                table.add_row(f"{begin + 1}-{end - 1}", branch or "all", f"{sum(weights):.3f}", shown)
    return table


def compared(one: PlanFile, other: PlanFile) -> list[str]:
    """What differs between two plans, for people."""
    first, second = set(one.run_steps), set(other.run_steps)
    both = sorted(first & second)
    found = [
        f"both run at {' '.join(map(str, both))}",
        f"the first alone at {' '.join(map(str, sorted(first - second))) or 'no other step'}",
        f"the second alone at {' '.join(map(str, sorted(second - first))) or 'no other step'}",
    ]
    found += [f"made for {line.replace(', here ', ' and ')}" for line in differences(one.setting, other.setting)]
    found += [f"made for {line.replace(', here ', ' and ')}" for line in changes(one.setting, other.setting)]
    worth = [plan.expected.psnr if plan.expected else None for plan in (one, other)]
    if None not in worth:
        found.append("expected: " + " and ".join(f"{value:.1f}" for value in worth) + " dB PSNR")
    return found


def exported(plan: PlanFile, export: str) -> str:
    """A plan's schedule in the words of another project.

    Args:
        plan: the plan.
        export: one of `EXPORTS`.

    Raises:
        SpectrumError: for another word, and for a schedule that the authors' settings cannot express.
    """
    if export not in EXPORTS:
        refuse(f"export={export} is unknown: type one of {', '.join(EXPORTS)}")
    if export == "cache-dit":
        return f"steps_computation_mask={computation_mask(plan.run_steps, plan.setting.steps)}"
    own = as_growing_window(plan.run_steps, plan.setting.steps)
    if own is None:
        return refuse(f"no growing window runs at {plan.run_steps}: the authors' settings cannot express it")
    return " ".join(f"schedule.{key}={value}" for key, value in own.items())
