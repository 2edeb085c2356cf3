"""Check a method by others, and put its records and its row on the leaderboard.

python scripts/submit.py NAME --check                                 check it, change nothing
python scripts/submit.py NAME who="A. Author" link=https://example.org  and add it to results/leaderboard.md

NAME is a file of configs/method. docs/submit.md has the rules, and how to make the records.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.tables.leaderboard import Author, authors_csv, leaderboard, read_authors
from spectrum.bench.submission import CHECKS, Rules, Submission, to_commit
from spectrum.commands.guard import options, quiet, wants_help
from spectrum.config.reader import CONFIGS, RESULTS
from spectrum.core.errors import refuse
from spectrum.models.fitted import fits_of
from spectrum.records.files import json_bytes, write_together
from spectrum.records.record import read_records, record_content

USAGE = "python scripts/submit.py NAME [--check] [records=FOLDER] [plugins=PACKAGE] [who=NAME] [link=URL]"
OPTIONS = {
    "records": "the folder of the method's records; outputs/submission by default",
    "plugins": "the packages outside the project that hold its functions, with commas between them",
    "who": "whose method it is; needed without --check",
    "link": "where it is described",
}
TOYS = ("flux", "sdxl", "wan21_1_3b")
"""The models on whose toys a method is put through the conformance cases."""


def main(words: list[str], rules: Rules | None = None, results: Path = RESULTS) -> None:
    """Check a method; without `--check` add it.

    Args:
        words: its name, `--check`, and the options.
        rules: what a submission is made on; by default the leaderboard's.
        results: the folder of the committed records and of the leaderboard.

    Raises:
        SpectrumError: with the first rule that is not met, and what to type.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    names = [word for word in words if "=" not in word and not word.startswith("-")]
    check = "--check" in words
    given = options([word for word in words if word not in names and word != "--check"], OPTIONS, USAGE)
    if len(names) != 1:
        refuse(f"which method? type {USAGE}")
    rules = rules or Rules()
    plugins = tuple(filter(None, given.get("plugins", "").strip("[]").split(",")))
    folder = Path(given.get("records", "outputs/submission"))
    submission = Submission(names[0], plugins, folder, results / "records", rules)
    author = _author(submission, given, check, results)
    quiet()
    for held, function in CHECKS.items():
        function(submission)
        print(f"{held}: yes")
    print(f"it conforms: {conforms(submission)}")
    new = dict(to_commit(submission))
    if check or author is None:
        print(f"{submission.name} can be submitted: type {USAGE.replace('NAME [--check]', submission.name)}")
        return
    _add(submission, author, {path: json_bytes(record_content(record)) for path, record in new.items()}, results)
    print(f"added: {', '.join(path.name for path in new) or 'no new record'}; {results / 'leaderboard.md'}")


def _author(submission: Submission, given: dict[str, str], check: bool, results: Path) -> Author | None:
    """Who submits it; refuses the name of somebody else's method."""
    known = read_authors(results / "submissions.csv").get(submission.name)
    who = given.get("who", "").strip()
    if not who and not check:
        refuse(f"whose method is {submission.name}? type who=NAME")
    if known is not None and who and known.who != who:
        refuse(f"{submission.name} is a method of {known.who}: give yours another name")
    if any(letter in f"{who}{given.get('link', '')}" for letter in "|<>\n"):
        refuse("who= and link= are cells of a table: leave out | < > and line ends")
    link = given.get("link", known.link if known else "")
    if link and not link.startswith("https://"):
        refuse(f"link={link} is no web address: type link=https://...")
    return Author(who, link) if who else None


def conforms(submission: Submission) -> str:
    """Put a method through the conformance cases on a few toys.

    Returns:
        `yes`, with the models that it cannot serve; how to check it where the cases are not here.

    Raises:
        SpectrumError: with the first case that failed.
    """
    tests = CONFIGS.parent / "tests"
    if not (tests / "cases.py").exists():
        return f"not checked, the cases are in a checkout: python scripts/conformance.py methods={submission.name}"
    if str(tests) not in sys.path:
        sys.path.insert(0, str(tests))
    cases = importlib.import_module("cases")
    job = next(iter(submission.jobs.values()))
    fit = fits_of(job.config.model).get(submission.name, {})
    cases.FITTED.setdefault(submission.name, {key: fit[key] for key in fit if key not in ("by_runs", "fitted_on")})
    refused = []
    for model in TOYS:
        cases.PLUGINS[:] = submission.plugins
        try:
            outcomes = cases.outcomes(model, submission.name)
        finally:
            cases.PLUGINS.clear()
        for case, outcome in outcomes.items():
            if outcome.startswith("failed"):
                refuse(f"{submission.name} fails case {case} of tests/cases.py on {model}: {outcome}")
            refused += [model] if outcome.startswith("refused") and model not in refused else []
    if len(refused) == len(TOYS):
        refuse(f"{submission.name} is refused on {', '.join(TOYS)}: type python scripts/conformance.py to see why")
    return "yes" + (f", and is refused on {', '.join(refused)}" if refused else "")


def _add(submission: Submission, author: Author, records: dict[Path, bytes], results: Path) -> None:
    """Write the new records, who submitted them, and the leaderboard; all or nothing."""
    authors = {**read_authors(results / "submissions.csv"), submission.name: author}
    every = _with(read_records(results / "records"), submission)
    rules = submission.rules
    metrics = list(next(iter(submission.jobs.values())).config.eval)
    page = leaderboard(every, authors, rules.data, metrics, rules.budgets)
    texts = {results / "submissions.csv": authors_csv(authors).encode(), results / "leaderboard.md": page.encode()}
    write_together({**records, **texts})


def _with(records: Sequence, submission: Submission) -> list:
    """The committed records and those of a submission."""
    known = {record.id for record in records}
    return [*records, *(record for record in submission.records.values() if record.id not in known)]
