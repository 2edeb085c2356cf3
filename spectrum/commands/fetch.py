"""Download a model's weights, a prompt list or a metric's files. No other command downloads anything.

python scripts/fetch.py                          what can be fetched, and what is here
python scripts/fetch.py flux drawbench lpips     licence, size and folder first, then it asks

A download that was interrupted goes on where it stopped when the same command is typed again.
"""

import sys

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval.metrics.files import ALSO_CALLED
from spectrum.bench.requirements import item_of, names
from spectrum.commands.guard import bad_input, nearest, options, wants_help
from spectrum.core.errors import refuse
from spectrum.models.downloading import check_room, download
from spectrum.models.sources import COMMAND, HubFiles, Item, Source, shown, size_text

USAGE = f"{COMMAND} [NAME ...] [yes=true]"
OPTIONS = {"yes": "true downloads without asking"}


def main(words: list[str]) -> int:
    """List what can be fetched, or fetch what is named.

    Args:
        words: names of models, prompt lists and metrics' files, and `yes=true`.

    Returns:
        0; 1 if the answer to the question was no.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return 0
    wanted = [word for word in words if "=" not in word]
    agreed = options([word for word in words if "=" in word], OPTIONS, USAGE).get("yes", "false").lower()
    if agreed not in ("true", "false"):
        refuse(f"yes={agreed} is neither true nor false: type {USAGE}")
    if not wanted:
        _print_all()
        return 0
    items = [_named(name) for name in dict.fromkeys(wanted)]
    lacking = [item for item in items if not item.here]
    for item in items:
        print(_about(item))
    if not lacking:
        return 0
    for item in lacking:
        check_room(item)
    if agreed == "false" and not _asked(lacking):
        print("nothing was downloaded")
        return 1
    for item in lacking:
        for source in (source for source in item.sources if not source.here):
            _fetch(source)
    return 0


def _named(name: str) -> Item:
    """The item of a name that was typed."""
    known = [*ALSO_CALLED, *(found for group in names().values() for found in group)]
    if name not in known:
        refuse(f"there is nothing called {name} to fetch{nearest(name, known)}: {COMMAND} lists what there is")
    return item_of(name) or refuse(f"{name} ships with the project: there is nothing to fetch")


def _about(item: Item) -> str:
    """What is to be known before an item is downloaded: licence, page, size, commit, folder."""
    lines = [f"{item.name}: {item.what}" + (", all here" if item.here else "")]
    for source in item.sources:
        state = ", here" if source.here else ""
        lines.append(f"  licence: {source.licence}, {source.page}")
        lines.append(f"  size:    {size_text(source.size_gb)}{state}")
        if isinstance(source, HubFiles):
            lines.append(f"  commit:  {source.revision or 'NOT PINNED, the newest one is taken'}")
        lines.append(f"  to:      {shown(source.target)}")
    return "\n".join(lines)


def _asked(lacking: list[Item]) -> bool:
    """Ask whether to download.

    Raises:
        SpectrumError: if there is nobody to ask.
    """
    named = " ".join(item.name for item in lacking)
    if not sys.stdin.isatty():
        refuse(f"nothing was downloaded, because there is no terminal to ask: type {named} yes=true to agree")
    size = size_text(sum(item.size_gb for item in lacking))
    return input(f"Accept the licences above and download {named} ({size})? [y/N] ").strip().lower() in ("y", "yes")


def _fetch(source: Source) -> None:
    if isinstance(source, HubFiles) and source.revision is None:
        line = f"warning: the commit of {source.hub} is not pinned: the newest one is taken, and named below"
        print(line, file=sys.stderr)
    print(download(source), flush=True)


def _print_all() -> None:
    """Print everything that can be fetched. A name whose file is broken is named with the reason; others are listed."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in ("name", "size", "licence"):
        table.add_column(head, overflow="fold", no_wrap=head != "licence")
    broken = []
    for kind, group in names().items():
        table.add_row(f"[bold]{kind}[/bold]")
        for name in group:
            try:
                item = item_of(name)
            except Exception as error:
                broken.append(f"{name}: {bad_input(error) or f'{type(error).__name__}: {error}'}")
                continue
            if item is None:
                continue
            licence = " and ".join(dict.fromkeys(source.licence for source in item.sources))
            table.add_row(f"  {name}", "here" if item.here else size_text(item.size_gb), escape(licence))
        table.add_section()
    console = Console()
    console.print(table)
    console.print(f"type {USAGE}", markup=False, highlight=False)
    if broken:
        refuse("these cannot be read: " + "; ".join(broken))
