"""The report of planted changes, and the script that makes it."""

import ast
import json

import mutation
import pytest
from command import error_line, script

SOURCE = """
@exact(1)
@exact(0, order=0)
def forecast(times):
    @wraps(times)
    def inner():
        return 1

    return inner


class A:
    @property
    def x(self):
        if self.y < 0:
            refuse(
                "y is negative"
            )
        return self.y

    @classmethod
    def make(cls):
        raise ValueError("no")
"""


def test_decorators_are_written_as_the_calls_that_they_stand_for():
    found = ast.parse(mutation.without_decorators(SOURCE))
    expected = ast.parse("""
def forecast(times):
    def inner():
        return 1
    inner = wraps(times)(inner)

    return inner
forecast = exact(1)(exact(0, order=0)(forecast))


class A:
    def x(self):
        if self.y < 0:
            refuse("y is negative")
        return self.y
    x = property(x)

    @classmethod
    def make(cls):
        raise ValueError("no")
""")
    assert ast.dump(found) == ast.dump(expected)


def test_messages_alone_are_left_as_they_are():
    marked = [
        line.split("#")[0].strip() for line in mutation.plain_messages(SOURCE).splitlines() if "no mutate" in line
    ]
    assert marked == ["refuse(", '"y is negative"', ")", 'raise ValueError("no")']


def test_a_report_is_read_as_it_was_written():
    parts = {
        "a.py": mutation.Part(9, 8, [("f", "x \\| y", "x & y", "both are sets of bits")]),
        "b.py": mutation.Part(2, 2, []),
    }
    text = mutation.rendered(parts)
    assert mutation.read_report(text) == parts and "**10 of 11 changes noticed (90.9 %).**" in text


def results_of(folder, codes, monkeypatch):
    """The results of folders in which changes of `a.py` and `b.py` ended with `codes`."""
    for number, by_file in enumerate(codes):
        for source, found in by_file.items():
            meta = folder / str(number) / "mutants" / f"{source}.meta"
            meta.parent.mkdir(parents=True, exist_ok=True)
            meta.write_text(json.dumps({"exit_code_by_key": found}))
    monkeypatch.setattr(mutation, "change", lambda name, folder, mutmut: (name, "old", "new"))
    return mutation.results([folder / str(number) for number in range(len(codes))], folder)


def test_a_change_is_noticed_if_a_test_failed_broke_down_or_did_not_end(tmp_path, monkeypatch, capsys):
    codes = {"x1": 1, "x2": 3, "x3": -11, "x4": 36, "x5": 0, "x6": 33}
    found = results_of(tmp_path, [{"a.py": codes, "empty.py": {}}], monkeypatch)
    left = [
        ("x5", "old", "new", "not explained yet (survived)"),
        ("x6", "old", "new", "not explained yet (not reached)"),
    ]
    assert found == {"a.py": mutation.Part(6, 4, left)}
    for interrupted in (2, 34, 35, -9, None):
        capsys.readouterr()
        assert results_of(tmp_path, [{"a.py": codes | {"x3": interrupted}}], monkeypatch) == {}
        assert capsys.readouterr().out == "a.py: 1 of 6 changes were not run, so its lines stay as they are\n"


def test_results_of_several_folders_are_joined(tmp_path, monkeypatch):
    one = {"a.py": {"x1": 0, "x2": 1, "x3": None}, "b.py": {"y1": None}}
    two = {"a.py": {"x1": 1, "x2": 0, "x3": 0}, "b.py": {"y1": None}}
    for codes in ([one, two], [two, one]):
        assert results_of(tmp_path, codes, monkeypatch) == {
            "a.py": mutation.Part(3, 2, [("x3", "old", "new", "not explained yet (survived)")])
        }


def test_a_report_keeps_its_reasons_and_the_files_that_were_not_run():
    known = {
        "a.py": mutation.Part(9, 7, [("f", "x", "y", "the same"), ("g", "x", "y", "gone since")]),
        "b.py": mutation.Part(2, 1, [("f", "x", "y", "also the same")]),
    }
    run = {"a.py": mutation.Part(8, 6, [("f", "x", "y", mutation.OPEN), ("h", "x", "y", mutation.OPEN)])}
    assert mutation.merged(known, run) == {
        "a.py": mutation.Part(8, 6, [("f", "x", "y", "the same"), ("h", "x", "y", mutation.OPEN)]),
        "b.py": known["b.py"],
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "in which folder?"),
        (["folder=FULL"], "has something else in it: type a new one"),
        (["folder=FULL/file"], "has something else in it: type a new one"),
        (["folder=ROOT/outputs/m"], "lies in the project"),
        (["folder=NEW", "report=yes"], "report=yes is unknown: type report=true"),
        (["folder=NEW", "report=true"], "holds no results"),
        (["folder=FULL,OLD", "report=true"], "FULL holds no results"),
        (["folder=NEW,OTHER"], "several are for report=true"),
        (["folder=OLD", "tests=test_grid.py"], "has its tests chosen already"),
        (["folder=NEW"], "pip install mutmut"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(words, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "OLD").mkdir()
    (tmp_path / "OLD/pyproject.toml").write_text("[tool.mutmut]\n")
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL/file").touch()
    given = [word.replace("ROOT", str(mutation.ROOT)) for word in words]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    before = mutation.REPORT.read_text()
    assert says in error_line(script(mutation, *given, capsys=capsys, monkeypatch=monkeypatch))
    assert mutation.REPORT.read_text() == before and not (tmp_path / "NEW").exists()


def test_the_committed_report_has_nine_of_ten_noticed_and_explains_the_others():
    parts = mutation.read_report(mutation.REPORT.read_text())
    for pattern in mutation.SUBJECTS:
        assert any(name.startswith(pattern.removesuffix("*")) for name in parts), pattern
    changes, noticed = sum(p.changes for p in parts.values()), sum(p.noticed for p in parts.values())
    assert changes > 5000 and noticed / changes >= 0.9
    assert changes - noticed == sum(len(part.left) for part in parts.values())
    assert not [row for part in parts.values() for row in part.left if row[3].startswith(mutation.OPEN)]
