"""What figures show: text as it was typed, lines that can be told apart, labels that do not overlap."""

import dataclasses
import itertools
import re
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import pytest
import torch
from by_hand import records_of_all

from eval.figures import figures, sheets
from eval.figures.plotting import drawable, pyplot, save, set_heading, set_legend, spread
from eval.figures.styles import METHODS, line_styles
from eval.tables.experiments import load_experiment
from eval.tables.tables import ExperimentTable, match_rows
from spectrum.commands.figures import draw_experiment
from spectrum.config.reader import choices, compose_raw, group_file, group_files, method_file, method_files

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = [
    "cost $5 or $6_a",
    r"broken $\frac$ {x}_1^2 \n %d",
    "<b>bold</b> & &amp;",
    "狐狸在森林里",
    "🦊 fox 👨‍👩‍👧 ❤️",
    "ثعلب في الغابة",
    "한국어 ไทย हिन्दी",
    "\x07\ufffe\U0010ffff\ufe0f",
]


@pytest.fixture(scope="module")
def records():
    return records_of_all("tiny_baselines", "tiny_blend")


@pytest.fixture(scope="module")
def baselines(records):
    table = match_rows(load_experiment("tiny_baselines"), records)
    assert len({record.name for record in table.records}) >= 17
    return table.records


def svg_texts(path, draw):
    """The texts of a figure that `draw` writes to an SVG file, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as seen, matplotlib.rc_context({"svg.fonttype": "none"}):
        warnings.simplefilter("always")
        draw(path)
    texts = re.findall(r"<text[^>]*>(.*?)</text>", path.read_text(), re.DOTALL)
    return [re.sub(r"<[^>]*>", "", text).strip() for text in texts], [str(w.message) for w in seen]


def test_3_prompts_are_drawn_as_they_were_typed(tmp_path):
    images = {"all": torch.zeros(len(PROMPTS), 3, 8, 8), r"$\frac$ 狐": torch.zeros(len(PROMPTS), 3, 8, 8)}
    texts, said = svg_texts(tmp_path / "a.svg", lambda path: sheets.draw_sheet(path, PROMPTS, images))
    assert not [line for line in said if "lyph" in line], said
    whole = " ".join(texts)
    assert "cost $5 or $6_a" in whole and r"$\frac$ Hu" in whole and "&lt;b&gt;bold&lt;/b&gt;" in whole
    assert "HuLi" in whole and ":fox: fox" in whole


def test_the_plain_prompt_would_warn_of_missing_glyphs(tmp_path):
    """The check above can fail: matplotlib does warn of glyphs that its font lacks."""

    def draw(path):
        figure, axis = pyplot().subplots()
        axis.set_title(PROMPTS[3])
        figure.savefig(path.with_suffix(".png"))
        path.write_text("")

    assert [line for line in svg_texts(tmp_path / "a.svg", draw)[1] if "lyph" in line]


@pytest.mark.parametrize(
    "name", ["heading", "legend", "timeline", "errors", "quality", "panel", "timelines", "weights", "ablation"]
)
def test_labels_are_drawn_as_they_were_typed(name, tmp_path, records):
    import dataclasses

    label = r"a $\frac$ 狐"
    own = [dataclasses.replace(r, label=label, method={**r.method, "name": label}) for r in records if r.weights][:3]
    errors = {label: [{"step": 1, "feature": 0.1, "velocity": 0.2}, {"step": 2, "feature": 0.1, "velocity": 0.2}]}

    def bare(add):
        def draw(path):
            figure, axis = pyplot().subplots()
            axis.plot([0, 1], [0, 1], label=label)
            add(figure, axis)
            save(figure, path)

        return draw

    table = match_rows(load_experiment("tiny_blend"), records)
    table = dataclasses.replace(table, experiment=dataclasses.replace(table.experiment, title=label))
    draw = {
        "heading": bare(lambda figure, axis: set_heading(figure, label)),
        "legend": bare(lambda figure, axis: set_legend(axis)),
        "timeline": lambda path: sheets.draw_timeline(path, {label: [0, 2]}, 4, label),
        "errors": lambda path: sheets.draw_forecast_errors(path, errors, label),
        "quality": lambda path: save(figures.quality_figure(own, "psnr", label), path),
        "panel": lambda path: save(figures.errors_figure(own, label), path),
        "timelines": lambda path: save(figures.timelines_figure(own, label), path),
        "weights": lambda path: save(figures.weights_figure(own, label), path),
        "ablation": lambda path: save(figures.ablation_figure(table, "method.forecast.blend"), path),
    }[name]
    texts, said = svg_texts(tmp_path / "a.svg", draw)
    assert not [line for line in said if "lyph" in line]
    assert [text for text in texts if r"a $\frac$ Hu" in text], texts


@pytest.mark.parametrize(
    ("typed", "drawn"),
    [
        ("a fox, é äö Ωλ", "a fox, é äö Ωλ"),
        ("狐", "Hu"),
        ("🦊", ":fox:"),
        ("a\tb\x07\u200bc", "a bc"),
        ("$x$", "$x$"),
        ("\ue000", ""),
    ],
)
def test_3_letters_without_a_glyph_are_transliterated(typed, drawn):
    assert drawable(typed) == drawn


def test_10_no_two_methods_look_the_same():
    names = [name for name in choices("method") if name != "none"]
    styles = line_styles(names)
    assert len(set(styles)) == len(names) >= 19
    assert len(set(METHODS.values())) == len(METHODS)
    assert set(METHODS) == set(names), "every method of the project has a style of its own"
    assert len({(style.colour, style.dashes) for style in styles}) == len(names), "without their markers too"


def test_lines_of_one_method_and_of_strangers_differ():
    names = [*METHODS, "mine", "yours", *["spectrum"] * 12, "mine", *(f"other {i}" for i in range(30))]
    styles = line_styles(names)
    assert len(set(styles)) == len(names)
    assert styles[: len(METHODS)] == list(METHODS.values())
    assert {s.colour for s, name in zip(styles, names, strict=True) if name == "spectrum"} == {"#1f5fbf"}
    assert line_styles(["spectrum", "spectrum"])[1].dashes != "-"


@pytest.mark.parametrize("gap", [0.01, 0.05, 0.08])
def test_spread_positions_keep_their_distance_and_order(gap):
    generator = torch.Generator().manual_seed(0)
    for count in range(1, 13):
        for wanted in torch.rand(50, count, generator=generator).tolist():
            found = spread(wanted, gap, 0.0, 1.0)
            placed = [found[i] for i in sorted(range(count), key=lambda i: wanted[i])]
            assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(placed))
            assert placed[0] >= -1e-9 and placed[-1] <= 1 + 1e-9
    assert spread([0.2, 0.9], 0.1) == [0.2, 0.9]


def test_10_labels_of_seventeen_lines_do_not_overlap(baselines, tmp_path):
    figure = figures.quality_figure(baselines, "psnr", "")
    figure.canvas.draw()
    for axis in figure.axes:
        names = {record.name for record in baselines if record.name != "none"}
        boxes = [text.get_window_extent() for text in axis.texts if text.get_text() in names]
        assert len(boxes) == len(names) >= 16
        inner = [box.from_extents(box.x0, box.y0 + 1, box.x1, box.y1 - 1) for box in boxes]
        assert not [1 for a, b in itertools.combinations(inner, 2) if a.overlaps(b)]
        other = next(a for a in figure.axes if a is not axis)
        assert not [box for box in boxes if other.get_window_extent().overlaps(box)]
    pyplot().close(figure)


def test_what_was_not_timed_has_no_panel_of_speed_ups(baselines):
    untimed = [dataclasses.replace(record, timing=None) for record in baselines]
    assert [len(figures.quality_figure(own, "psnr", "").axes) for own in (baselines, untimed)] == [2, 1]


def test_an_experiment_without_rows_of_14_runs_has_the_figure_of_quality_alone(baselines, tmp_path):
    experiment = load_experiment("tiny_baselines")
    few = [record for record in baselines if record.name == "none" or abs(record.nfe - 10) <= 0.5]
    matched = [({}, record) for record in few]
    draw_experiment("mine", ExperimentTable(experiment, matched, [], None), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.png", "mine.svg"]


def test_10_the_errors_of_each_method_have_a_panel_of_their_own(baselines):
    few = [record for record in baselines if abs(record.nfe - 14) <= 0.5 and any(record.forecast_errors.values())]
    figure = figures.errors_figure(few, "")
    assert [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()] == [r.label for r in few]
    for axis, record in zip(figure.axes, few, strict=False):
        branches = list(record.forecast_errors.values())
        step = branches[0][0]["step"]
        values = [e["velocity"] for branch in branches for e in branch if e["step"] == step]
        front = max(axis.lines, key=lambda line: line.zorder)
        assert front.get_ydata()[list(front.get_xdata()).index(step)] == pytest.approx(sum(values) / len(values))
    pyplot().close(figure)


def python(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_tables_compose_each_config_once(tmp_path):
    """Composing is what takes the time of `tables`: 54 compositions were 4 s."""
    code = (
        "import hydra, sys\n"
        "calls, own = [], hydra.compose\n"
        "hydra.compose = lambda *given, **more: (calls.append(given), own(*given, **more))[1]\n"
        "from spectrum.commands import tables\n"
        f"tables.main(['to={tmp_path}'])\n"
        "print(len(calls), 'torch' in sys.modules)"
    )
    ran = python("-c", code)
    assert ran.returncode == 0, ran.stderr
    count, torch_there = ran.stdout.split()[-2:]
    assert int(count) <= 6 and torch_there == "False"


@pytest.mark.parametrize(
    "words", [["scripts/plan.py"], ["scripts/plan.py", "method=fora", "runs=10"], ["run.py", "-h"]]
)
def test_planning_and_help_import_no_torch(words):
    ran = python("-X", "importtime", *words)
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert ran.returncode == 0 and "spectrum.core.errors" in imported
    assert not imported & {"torch", "diffusers", "matplotlib", "transformers"}


def test_files_composed_together_are_those_composed_alone():
    assert {name: method_file(name) for name in choices("method")} == method_files()
    for group in ("schedule", "model"):
        assert {name: group_file(group, name) for name in choices(group)} == group_files(group)


@pytest.mark.parametrize("name", ["tiny_table", "tiny_clock", "wan_vbench"])
def test_an_experiment_has_the_data_that_it_has_alone(name):
    alone = compose_raw([f"experiment={name}"], hydra=True)
    data = load_experiment(name).data
    assert data["name"] == alone.model.name and data["steps"] == alone.model.steps
    assert (data["file"], data["limit"]) == (alone.prompts.file, alone.prompts.limit)
    assert data["seeds"] == list(alone.seeds) and data["height"] == alone.model.height
    assert f"eval={alone.hydra.runtime.choices['eval']} " in load_experiment(name).rows[0].command
