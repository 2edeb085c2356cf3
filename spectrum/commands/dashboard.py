"""Build the W&B workspace and report over runs that `logger=wandb` sent: quality against cost, sheets, comparisons.

python scripts/dashboard.py entity=NAME [project=spectrum]       needs the network and a key: wandb login
python scripts/dashboard.py entity=NAME dry=true                 print what would be built, without either
"""

import json
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from eval.metrics.columns import METRICS
from spectrum.bench.loggers import has_key
from spectrum.commands.guard import options, wants_help
from spectrum.core.errors import refuse

PICTURES = ["sheet", "timeline", "error"]


def plots() -> list[Any]:
    """Quality against runs and against speed-up, one point a run, and each metric as bars."""
    against = [wr.ScatterPlot(title=f"PSNR against {x}", x=wr.SummaryMetric(x), y=wr.SummaryMetric("psnr"))
               for x in ("nfe", "speedup")]  # fmt: skip
    bars = [wr.BarPlot(title=METRICS[name].title, metrics=[name]) for name in ("psnr", "ssim", "clip_score")]
    return [*against, *bars, wr.BarPlot(title="speed-up", metrics=["speedup"])]


def workspace(entity: str, project: str) -> ws.Workspace:
    """A workspace of three sections: quality against cost, pictures, comparisons of multiruns."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Caching methods",
        sections=[
            ws.Section(name="Quality against cost", panels=plots(), is_open=True),
            ws.Section(name="Pictures", panels=[wr.MediaBrowser(media_keys=PICTURES)], is_open=True),
            ws.Section(name="Settings", panels=[wr.RunComparer()], is_open=False),
        ],
    )


def report(entity: str, project: str) -> wr.Report:
    """A report: what is compared, the same plots over the runs, their sheets."""
    runs = wr.Runset(entity=entity, project=project, name="runs")
    return wr.Report(
        entity=entity,
        project=project,
        title="Training-free caching: quality against cost",
        description="Mirrored from records; the records are the source.",
        blocks=[
            wr.H1("Quality against cost"),
            wr.P("Every point is one run on the same noise as its uncached reference. Groups are multiruns."),
            wr.PanelGrid(runsets=[runs], panels=plots()),
            wr.H1("Pictures"),
            wr.PanelGrid(runsets=[runs], panels=[wr.MediaBrowser(media_keys=PICTURES)]),
        ],
    )


USAGE = "python scripts/dashboard.py entity=NAME [project=spectrum] [dry=true]"
OPTIONS = {
    "entity": "the W&B account",
    "project": "the W&B project; spectrum by default",
    "dry": "true prints what would be built, without network and key",
}


def main(words: list[str]) -> None:
    """Save both, or print what they would hold.

    Args:
        words: `entity=NAME`, `project=NAME`, `dry=true`.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = {"project": "spectrum", "dry": "false", **options(words, OPTIONS, USAGE)}
    if "entity" not in given:
        refuse(f"which W&B account? type {USAGE}")
    if given["dry"] == "true":
        built = workspace(given["entity"], given["project"])
        names = {s.name: [type(p).__name__ for p in s.panels] for s in built.sections}
        print(json.dumps({"workspace": names, "report": report(given["entity"], given["project"]).title}, indent=1))
        return
    if not has_key():
        refuse("a dashboard needs an API key: type wandb login, or set WANDB_API_KEY")
    made = workspace(given["entity"], given["project"]).save(), report(given["entity"], given["project"]).save()
    print("\n".join(str(thing.url) for thing in made))
