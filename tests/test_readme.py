"""Every command and every Python block of the README, and of the pages that show commands, is run at a reduced size.

`RULES` says for each command what is changed, and why where it is not run as a whole. A command that no rule knows
fails its test.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from by_hand import records_of
from command import ROOT, call
from toys import aura_flow, aura_flow_embeds
from typed import typed

from spectrum import restore
from spectrum.commands import COMMANDS
from spectrum.config.reader import choices
from spectrum.models.identity import EMBEDDED
from spectrum.records.record import write_record

PAGES = ("README.md", "docs/index.md", "docs/configuration.md", "docs/results.md")
MADE = re.compile(r"^<!-- table \w+ -->$.*?^<!-- end -->$", re.M | re.S)
"""A table that scripts/tables.py puts into the README, with the commands of rows that have no record."""
FENCE = re.compile(r"^```(bash|python)\n(.*?)^```$", re.M | re.S)
SMALL = {"model.steps": "7", "batch": "2", "prompts.limit": "2", "timing": "0", "probe": "0", "out": "TMP/out"}
FULL_LENGTH = {**SMALL, "model.steps": "50", "batch": "1", "prompts.limit": "1"}


@dataclass(frozen=True)
class Rule:
    """How the commands that begin in one way are checked.

    Attributes:
        start: what they begin with; of several rules the one with the longest start holds.
        changes: settings that are changed or added; None takes one out. TMP is a folder of the test, TRACE a trace,
            SHORT one of 16 steps.
        reason: why no more than `how` is done.
        how: `run`, `help` (only its help is printed) or `files` (only what it installs from must exist).
    """

    start: str
    changes: Mapping[str, str | None] = field(default_factory=dict)
    reason: str = ""
    how: str = "run"


RULES = [
    Rule("python run.py", SMALL),
    Rule("python run.py method=spectrum schedule=explicit", {**SMALL, "model.steps": "34"}),
    Rule("python run.py redo=[timing]", {**SMALL, "timing": "1"}),
    Rule("python run.py model=flux", {**SMALL, "model.weights": "tiny"}, "the weights are not on every machine"),
    Rule("python run.py method=mine", {**SMALL, "method": "fora", "plugins": None}, "both are the reader's"),
    Rule(
        "python run.py experiment=tiny_table",
        {
            **SMALL,
            "records": "TMP/records",
            "eval": "default",
            "hydra.sweeper.params.method": "'none,fora'",
            "hydra.sweeper.params.runs": "3",
        },
        "each of its rows takes minutes",
    ),
    Rule("python run.py --multirun", SMALL),
    Rule(
        "python run.py --multirun method=fora,spectrum runs=14,10",
        FULL_LENGTH,
    ),
    Rule(
        "python run.py --multirun method=fora,spectrum runs=14,10 timing=0 hydra/launcher",
        {**SMALL, "runs": None, "hydra/launcher": None},
        "tests/test_launchers.py starts the launchers' processes",
    ),
    Rule(
        "python run.py --multirun model=flux",
        {**SMALL, "model.weights": "tiny", "prompts.limit": "1", "timing": "1"},
        "full size needs a GPU",
    ),
    Rule("python run.py method=planned", FULL_LENGTH),
    Rule(
        "python scripts/fit.py",
        {"runs": "4", "to": "TMP/p.json", "out": "TMP/out", "model.steps": "9", "prompts.limit": "2", "batch": "2"},
        "50 steps take minutes",
    ),
    Rule("python scripts/plan.py"),
    Rule("python scripts/bench/gpu.py", how="help", reason="tests/test_gpu_tables.py runs it at toy width"),
    Rule("python scripts/bench/cpu.py", how="help", reason="half an hour; tests/test_cpu_tables.py runs a part"),
    Rule("python scripts/bench.py", {"models": "sd15"}),
    Rule(
        "python scripts/bench/scale.py",
        how="help",
        reason="minutes; tests/test_bench_scripts.py runs it at a small size",
    ),
    Rule(
        "python scripts/bench/throughput.py",
        how="help",
        reason="minutes; tests/test_bench_scripts.py runs this one too",
    ),
    Rule("torchrun", how="files", reason="tests/test_sharded.py starts workers"),
    Rule("accelerate launch", how="files", reason="tests/test_sharded.py starts workers"),
    Rule(
        "srun", how="files", reason="Slurm is not on every machine; tests/test_sharded.py gives workers its variables"
    ),
    Rule(
        "python run.py --multirun method=fora,spectrum runs=14,10 timing=0 hydra/launcher=submitit_slurm",
        {**SMALL, "runs": None, "hydra/launcher": None, "hydra.launcher.gpus_per_node": None},
        "Slurm is not on every machine",
    ),
    Rule(
        "python run.py --multirun worker=0,1,2,3",
        {**SMALL, "hydra/launcher": None},
        "tests/test_launchers.py starts the launchers' processes",
    ),
    Rule("python scripts/plans.py", how="help", reason="tests/test_plan_studies.py measures a study of its own"),
    Rule(
        "python scripts/calibrate.py",
        {"write": None, "budgets": "4", "model.steps": "7", "prompts.limit": "2", "batch": "2"},
        "write=true would change what is committed; tests/test_calibrate.py writes to a copy",
    ),
    Rule(
        "python scripts/fetch.py", how="help", reason="downloads; tests/test_fetch.py does so from a server of its own"
    ),
    Rule("python scripts/tables.py", {"to": "TMP/tables"}),
    Rule("python scripts/tables.py --check"),
    Rule("python scripts/figures.py", {"to": "TMP/figures", "records": "SOME"}),
    Rule("python scripts/trace.py", {"trace": "TMP/trace.pt", **FULL_LENGTH, "timing": None, "probe": None}),
    Rule("python scripts/replay.py", {"trace": "TRACE"}),
    Rule("python scripts/replay.py trace=FILE records=", {"trace": "TRACE", "records": "SOME"}),
    Rule("python scripts/study.py", {"trace": "SHORT", "to": "TMP/study.json"}),
    Rule("python scripts/timing.py", how="help", reason="tests/test_timing_command.py times an experiment of its own"),
    Rule("python scripts/audit.py", how="help", reason="tests/test_audit.py runs it on a small run of its own"),
    Rule("python3 -m venv .venv", how="files", reason="a new environment takes minutes; CI types these lines"),
    Rule("pip install .", how="files", reason="tests/test_wheel.py installs it"),
    Rule("pip install -r requirements-docs.lock", how="files", reason="CI builds the documentation"),
]


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, block) of every block in a language."""
    return [
        (page, body)
        for page in PAGES
        for kind, body in FENCE.findall(MADE.sub("", (ROOT / page).read_text()))
        if kind == language
    ]


def commands() -> list[str]:
    """Every command that the pages show, without its comment, each once."""
    lines = [line for _, body in blocks("bash") for line in body.splitlines()]
    return list(dict.fromkeys(shlex.join(shlex.split(line, comments=True)) for line in lines if line.strip()))


def rule_for(command: str) -> Rule:
    plain = " ".join(shlex.split(command))
    found = [rule for rule in RULES if plain.startswith(rule.start)]
    assert found, f"no rule in tests/test_readme.py says how {command!r} is checked"
    return max(found, key=lambda rule: len(rule.start))


def reduced(words: list[str], changes: Mapping[str, str | None]) -> list[str]:
    """The words of a command with changed settings, and no more than two values in each list of a sweep."""
    kept = [word for word in words if word.partition("=")[0] not in changes]
    kept = [",".join(word.split(",")[:2]) if "--multirun" in words and "[" not in word else word for word in kept]
    return [*kept, *(f"{key}={value}" for key, value in changes.items() if value is not None)]


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """A trace of one prompt of the embedded model."""
    path = tmp_path_factory.mktemp("trace") / "tiny.pt"
    assert call("trace", "prompts.limit=1", "batch=1", f"trace={path}").code == 0
    return path


@pytest.fixture
def short(tmp_path):
    """A trace of a few steps."""
    assert call("trace", "prompts.limit=1", "batch=1", "model.steps=16", f"trace={tmp_path / 'short.pt'}").code == 0
    return tmp_path / "short.pt"


@pytest.fixture
def some_records(tmp_path):
    """A folder with a record for each row of the main table."""
    folder = tmp_path / "records"
    for record in records_of("tiny_table"):
        write_record(folder / f"{record.id}.json", record)
    return folder


@pytest.mark.docs
@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_documentation_works(command, tmp_path, request, capsys, monkeypatch):
    rule = rule_for(command)
    if rule.how == "files":
        named = re.findall(r"requirements[\w-]*\.lock|run\.py", command) or ["pyproject.toml"]
        assert all((ROOT / name).exists() for name in named)
        return
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command)[1:]
    name = Path(program).stem
    if rule.how == "help":
        done = subprocess.run([sys.executable, program, "--help"], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0 and program in done.stdout
        return
    text = "\n".join(reduced(words, rule.changes))
    for mark, fixture in (("TRACE", "trace"), ("SHORT", "short"), ("SOME", "some_records")):
        text = text.replace(mark, str(request.getfixturevalue(fixture))) if mark in text else text
    capsys.readouterr()
    said = call(name, *text.replace("TMP", str(tmp_path)).split("\n"), capsys=capsys)
    assert said.code == 0, said
    assert said.out
    if name == "run":
        assert list((tmp_path / "out").rglob("record.json"))


def test_every_rule_is_of_use():
    used = {rule_for(command).start for command in commands()}
    assert used == {rule.start for rule in RULES}
    assert all(rule.reason for rule in RULES if rule.how != "run")


LOADED = 'FluxPipeline.from_pretrained(name, torch_dtype=torch.bfloat16).to("cuda")'
CALLED = "num_inference_steps=50"
AURA_FLOW = 'AuraFlowPipeline.from_pretrained("fal/AuraFlow-v0.3", torch_dtype=torch.bfloat16).to("cuda")'
AURA_FLOW_CALL = 'pipe(**embeds, num_inference_steps=7, height=64, width=64, output_type="latent")'
SIZE = "num_inference_steps=7, height=96, width=96, max_sequence_length=16"


@pytest.mark.docs
@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_python_of_a_page_runs_on_the_embedded_model(page, capsys):
    scope: dict = {"toy": aura_flow(), "embeds": aura_flow_embeds()}
    code = [body for where, body in blocks("python") if where == page]
    assert LOADED in code[0] and CALLED in code[0]
    for number, body in enumerate(code):
        body = body.replace("black-forest-labs/FLUX.1-dev", str(EMBEDDED))
        body = body.replace(AURA_FLOW, "toy").replace(f'pipe("a red fox in the snow", {CALLED})', AURA_FLOW_CALL)
        exec(body.replace('torch.bfloat16).to("cuda")', "torch.float32)").replace(CALLED, SIZE), scope)
        assert number or scope["image"].size == (96, 96)
    if page == "README.md":
        printed = capsys.readouterr().out
        found = re.search(r"handle.layout.exits\)  # (.*)", code[1])
        assert "run_steps" in printed and found is not None and printed.endswith(f"{found[1]}\n")
    restore(scope["pipe"])


def test_the_tests_line_is_where_ci_looks_for_it():
    """`.ci/run` takes the line from the README that begins with python3 between the mark and the end of its block."""
    block = (ROOT / "README.md").read_text().partition("<!-- tests -->\n")[2].partition("\n```\n")[0]
    (line,) = [line for line in block.splitlines() if line.startswith("python3")]
    assert line.endswith(".venv/bin/python -m pytest")
    main = (ROOT / "README.md").read_text().partition("<!-- main job -->\n")[2].partition("\n```\n")[0]
    assert main.startswith("```bash\npython3 -m venv") and main.endswith(".venv/bin/python run.py")


def test_the_table_of_commands_names_every_command():
    named = re.findall(r"`spectrum (\w+)", (ROOT / "README.md").read_text().partition("## Commands")[2])
    assert set(COMMANDS) <= set(named)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_script_is_the_command_of_its_name(name):
    done = typed("run.py" if name == "run" else f"scripts/{name}.py", "--help")
    assert done.code == 0 and f"python {'run' if name == 'run' else f'scripts/{name}'}.py" in done.out, done.err


@pytest.mark.parametrize("group", ["method", "schedule", "prompts", "eval", "logger", "planner", "experiment"])
def test_the_table_of_settings_names_every_choice(group):
    (row,) = re.findall(rf"^\| `{group}=` \|(.*)\|$", (ROOT / "README.md").read_text(), re.M)
    assert set(choices(group)) <= set(re.findall(r"`(?:logger\.mode=)?(\w+)`", row))
