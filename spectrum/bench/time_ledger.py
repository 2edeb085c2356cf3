"""Where the time of steps that ran and of skipped ones goes, part by part: pure functions of measured steps."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.tables.comparison import markdown_table
from spectrum.bench.marks import FIRST, REST

KINDS = {"run": "ran", "skipped": "skipped", "mixed": "mixed"}
"""What a step can be, with the head of its columns; at a mixed one some denoiser calls ran their blocks."""
NOTE = (
    "One batch, sampled once more for this. The milliseconds are of a call with marks around each part and without the "
    "profiler: neither it nor the profiled call is one of the timed ones, whose times are in the record."
)

READING = (
    "A share is that of a whole step that ran. Calls are operators that Python called in the traced steps; on a GPU "
    "the kernels that these started stand behind the stroke."
)
CALLS = "operators", "kernels"

Calls = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By kind of step and part: operators that Python called, and kernels that the device ran, in a step."""


@dataclass(frozen=True)
class Ledger:
    """The ledger of a call.

    Attributes:
        kinds: what each step was.
        steps: for each step its milliseconds by part; they add up to those of the step.
        calls: see `Calls`; of the steps in the trace alone.
    """

    kinds: Sequence[str]
    steps: Sequence[Mapping[str, float]]
    calls: Calls

    def of(self, kind: str) -> list[Mapping[str, float]]:
        """The steps of a kind."""
        return [own for own, other in zip(self.steps, self.kinds, strict=True) if other == kind]

    def milliseconds(self, kind: str) -> float:
        """The mean of a step of a kind."""
        return statistics.fmean(sum(own.values()) for own in self.of(kind))

    def parts(self, kind: str) -> dict[str, float]:
        """The mean milliseconds of each part in a step of a kind; a part that is not called in one is left out."""
        steps = self.of(kind)
        names = [name for name in self.names if any(name in own for own in steps)]
        return {name: statistics.fmean(own.get(name, 0.0) for own in steps) for name in names}

    @property
    def names(self) -> list[str]:
        """The parts in the order of the table."""
        return _ordered([*dict.fromkeys(name for own in self.steps for name in own)])

    @property
    def limit(self) -> float | None:
        """The speed-up if a skipped step took no time: steps over those that ran; None where some were mixed."""
        ran = self.kinds.count("run")
        return None if "mixed" in self.kinds or not ran else len(self.kinds) / ran

    @property
    def speedup(self) -> float | None:
        """As many steps that all ran, at the mean time of those that did, over this call; None where it took none."""
        total = sum(sum(own.values()) for own in self.steps)
        return len(self.kinds) * self.milliseconds("run") / total if total else None

    @property
    def efficiency(self) -> float | None:
        """The speed-up's share of its limit; None where one of them is."""
        return None if self.speedup is None or self.limit is None else self.speedup / self.limit

    def content(self) -> dict[str, Any]:
        """The ledger as JSON holds it."""
        full = self.milliseconds("run")
        kinds = {}
        for kind in (kind for kind in KINDS if kind in self.kinds):
            parts = {
                name: {
                    "ms": round(ms, 4),
                    "share_of_a_run_step": round(ms / full, 6) if full else None,
                    **self._calls(kind, name),
                }
                for name, ms in self.parts(kind).items()
            }
            own = [number for number, other in enumerate(self.kinds) if other == kind]
            kinds[kind] = {"steps": own, "ms": round(self.milliseconds(kind), 4), "parts": parts}
        return {
            "note": NOTE,
            "limit": _rounded(self.limit),
            "speedup": _rounded(self.speedup),
            "efficiency": _rounded(self.efficiency),
            "kinds": kinds,
            "step_ms": [round(sum(own.values()), 4) for own in self.steps],
        }

    def _calls(self, kind: str, name: str) -> Mapping[str, float]:
        return self.calls.get(kind, {}).get(name, {})


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def heads_and_rows(content: Mapping[str, Any], most: int = 3) -> tuple[list[str], list[list[str]]]:
    """The table of a ledger.

    Args:
        content: `Ledger.content`.
        most: kinds of steps up to which the calls have a column beside each; a terminal has room for two.

    Returns:
        (the heads, the rows); the last row is the whole step.
    """
    kinds: Mapping[str, Any] = content["kinds"]
    full, counted = kinds["run"]["ms"], len(kinds) <= most
    names = [*dict.fromkeys(name for kind in kinds.values() for name in kind["parts"])]
    rows = [[{**FIRST, **REST}.get(name, name)] for name in _ordered(names)] + [["the whole step"]]
    for kind in kinds.values():
        parts: Mapping[str, Any] = kind["parts"]
        cells = [parts.get(name) for name in _ordered(names)]
        sums = {key: sum(part.get(key, 0) for part in parts.values()) for key in CALLS if _has(parts, key)}
        for row, part in zip(rows, [*cells, {"ms": kind["ms"], **sums}], strict=True):
            row += ["-", "-"] if part is None else [_ms(part["ms"]), _share(part["ms"], full)]
            row += [_calls(part, [key for key in CALLS if _has(parts, key)])] if counted else []
    heads = [head for kind in kinds for head in (KINDS[kind], "share", *(["calls"] if counted else []))]
    return ["ms in a step", *heads], rows


def _has(parts: Mapping[str, Any], key: str) -> bool:
    return any(key in part for part in parts.values())


def _calls(part: Mapping[str, float] | None, keys: Sequence[str]) -> str:
    """Operators, or operators/kernels; a dash for what is not called."""
    return "-" if part is None else "/".join(f"{part.get(key, 0):.0f}" for key in keys)


def _ordered(names: Sequence[str]) -> list[str]:
    """Parts in the order of a table: the blocks, the modules, and then what is no module."""
    modules = [name for name in names if name not in {**FIRST, **REST}]
    return [name for name in (*FIRST, *modules, *REST) if name in names]


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _share(part: float, full: float) -> str:
    if not full:
        return "-"
    return f"{100 * part / full:.2f} %" if part < full / 10 else f"{100 * part / full:.1f} %"


def conclusion(content: Mapping[str, Any]) -> str:
    """What follows for the speed-up, in a sentence or two."""
    kinds = content["kinds"]
    count = {kind: len(kinds[kind]["steps"]) if kind in kinds else 0 for kind in KINDS}
    steps = sum(count.values())
    if not count["skipped"] and not count["mixed"]:
        return f"All {steps} steps ran: nothing was skipped, so there is no speed-up to take apart."
    ran = f"Of {steps} steps {count['run']} ran" + (f", {count['mixed']} were mixed" if count["mixed"] else "")
    most = "" if content["limit"] is None else f": at most {content['limit']:.3f}x"
    if content["speedup"] is None:
        return f"{ran}{most}. They took no time that can be told."
    share = "" if content["efficiency"] is None else f", {100 * content['efficiency']:.1f} % of that"
    skipped = count["skipped"] * kinds["skipped"]["ms"] / sum(content["step_ms"]) if count["skipped"] else 0.0
    return (
        f"{ran}{most}. By these times it is {content['speedup']:.3f}x{share}; skipped steps took "
        f"{100 * skipped:.1f} % of the call."
    )


def machine_line(content: Mapping[str, Any]) -> str:
    """What the times were measured on."""
    about = content["environment"]["hardware"]
    gpu = f" ({about['gpu']})" if "gpu" in about else ""
    offload = f", offload={about['offload']}" if "offload" in about else ""
    return f"Measured on {about['device']}{gpu}, {about['threads']} threads of {about['cpu']}{offload}."


def page(content: Mapping[str, Any], title: str, traced: str) -> str:
    """The ledger as Markdown.

    Args:
        content: `Ledger.content`.
        title: its heading.
        traced: the sentence about the trace.
    """
    table = markdown_table(*heads_and_rows(content))
    return (
        "\n\n".join([f"# {title}", content["note"], table, READING, conclusion(content), machine_line(content), traced])
        + "\n"
    )
