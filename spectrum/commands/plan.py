"""Print what a method will do on a model; no weights are needed.

python scripts/plan.py model=flux method=spectrum schedule.growth=3.0
python scripts/plan.py model=flux method=taylorseer runs=10 format=json
python scripts/plan.py plan=FILE [export=cache-dit|authors]       what a plan made by scripts/fit.py holds
python scripts/plan.py plan=FILE,FILE                             what two of them have in common
"""

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from spectrum.bench.resolve import resolve
from spectrum.commands.guard import quiet, split_options, truth
from spectrum.commands.help import wants_config_help
from spectrum.commands.plan_files import show_plans
from spectrum.config.compose import compose
from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse
from spectrum.core.method import Plan
from spectrum.models.kept_rehearsals import kept_rehearsal
from spectrum.models.memory import need_of, why
from spectrum.models.need import Need, Rehearsed
from spectrum.models.plans import cache_bytes, plan_of


def as_json(config: RunConfig, plan: Plan, size: int | None, need: Need | str | None) -> str:
    """One object: `run_steps`, `nfe`, `weights` from skipped step to list (oldest first), `cache_bytes`,
    `memory_bytes` on the device at most, `memory_guessed` (what of them is a guess), `memory_unknown` (why there are
    none).
    """
    found: dict[str, Any] = {"model": config.model.name, "method": config.method.name, "steps": plan.steps}
    found |= {"run_steps": plan.runs, "nfe": plan.nfe, "weights": {str(s.step): s.weights for s in plan.skipped}}
    known = need if isinstance(need, Need) else None
    found |= {"cache_bytes": size, "memory_bytes": known and known.peak(config.offload)}
    found |= {"memory_guessed": known and known.guessed, "memory_unknown": need if isinstance(need, str) else None}
    return json.dumps(found)


def as_text(console: Console, config: RunConfig, plan: Plan, size: int | None, need: Need | str | None) -> None:
    """The same for people, with `sum w` and `|w|_1`."""
    console.print(f"[bold]{config.method.name}[/bold] on {config.model.name}, {plan.steps} steps")
    if plan.runs is None:
        console.print("run steps: decided by the data")
    else:
        console.print(f"run steps ({plan.nfe}): {' '.join(map(str, plan.runs))}", highlight=False)
        console.print(f"ideal speed-up: {config.model.steps / len(plan.runs):.2f}x")
    known = "known from the first run step on" if size is None else f"{size:,} bytes a sample ({size / 2**20:.1f} MiB)"
    console.print(f"cache: {known}", highlight=False)
    if need is not None:
        said = need.text(config.offload) if isinstance(need, Need) else f"cannot be worked out ({need})"
        console.print(f"memory: {said}", highlight=False, markup=False, soft_wrap=True)
    if not plan.skipped:
        if plan.runs is not None and len(plan.runs) < plan.steps:
            console.print("weights: decided by the data")
        return
    table = Table("step", "sum w", "|w|_1", "weights, oldest first", box=None, pad_edge=False)
    for skipped in plan.skipped:
        weights = " ".join(f"{w:.4f}" if w else "0" for w in skipped.weights)
        table.add_row(str(skipped.step), f"{skipped.total:.4f}", f"{skipped.l1:.4f}", weights)
    console.print(table)


def memory_of(config: RunConfig, plan: Plan) -> Need | str:
    """What a config needs of memory; or why that cannot be worked out.

    A model that ships is answered at once at its own size; any other is rehearsed, which takes torch and seconds.
    """

    def rehearsal(asked: RunConfig) -> Rehearsed:
        kept = kept_rehearsal(asked)
        if kept is not None:
            return kept
        from spectrum.bench.rehearsal import rehearse

        quiet()
        return rehearse(asked)

    try:
        return need_of(config, plan, rehearsal)
    except Exception as error:  # an estimate stops no plan
        return why(error)


OPTIONS = {
    "memory": "false leaves out what the model needs of memory, which takes seconds where a model's size was changed",
    "format": "text, or json",
    "plan": "a plan's file to show, or two with a comma between them to compare",
    "export": "cache-dit or authors: print the schedule of a plan as they write it",
}


def main(words: list[str]) -> None:
    """Print the plan of a config.

    Args:
        words: `format=json`, and the config's overrides.
    """
    if wants_config_help(words, __doc__ or "", OPTIONS):
        return
    given, overrides = split_options(words, OPTIONS, "python scripts/plan.py [format=json] [key=value ...]")
    style = given.get("format", "text")
    if style not in ("text", "json"):
        refuse(f"format={style} is unknown: type format=text or format=json")
    memory = truth("memory", given, True)
    if "plan" in given and "method=planned" not in overrides:
        if overrides or "format" in given:
            refuse(
                "plan=FILE is shown as it is: type method=planned to see what it does on a model, or leave the rest out"
            )
        show_plans(Console(), given["plan"], given.get("export"))
        return
    if "export" in given:
        refuse("export= takes plan=FILE")
    config, method = resolve(compose([*overrides, *([f"plan={given['plan']}"] if "plan" in given else [])]))
    plan = plan_of(config, method)
    size = cache_bytes(config, plan)
    need = memory_of(config, plan) if memory else None
    if style == "json":
        print(as_json(config, plan, size, need))
    else:
        as_text(Console(), config, plan, size, need)
