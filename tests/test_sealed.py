"""The sealed prompts are kept for releases, and nothing is fitted on prompts that methods are compared on."""

import shutil

import pytest
from command import QUICK, call, error_line

from spectrum.bench.prompts import read_prompts
from spectrum.config.compose import compose
from spectrum.config.prompt_lists import PROMPTS, shipped_prompts
from spectrum.core.errors import SpectrumError

SEALED = shipped_prompts("sealed")
KEPT = "these prompts are kept for releases: type prompts=heldout, or prompts.sealed=false if this is one"
LISTS = ("calibration", "development", "heldout", "sealed")


def spellings(folder):
    """Words that all lead to sealed prompts."""
    shutil.copy(PROMPTS / "sealed.txt", folder / "mine.txt")
    (folder / "some.txt").write_text("a cat on the moon\n" + SEALED[5] + "\n")
    (folder / "written.txt").write_text("\ufeff" + SEALED[7].upper().replace(" ", "  ") + " \n")
    files = ["sealed.txt", "../prompts/sealed.txt", PROMPTS / "sealed.txt", *sorted(folder.glob("*.txt"))]
    words = [[f"prompts.file={file}"] for file in files]
    return [*words, ["prompts=sealed"], ["prompts=sealed", "prompts.limit=1"], ["prompts.sealed=true"],
            ["prompts=inline", f"prompts.text=[\'{SEALED[0]}\']"]]  # fmt: skip


@pytest.mark.parametrize("number", range(10))
def test_sealed_prompts_are_refused_in_every_spelling(number, tmp_path):
    words = spellings(tmp_path)
    assert len(words) == 10
    with pytest.raises(SpectrumError) as refused:
        read_prompts(compose(words[number]).prompts)
    assert str(refused.value) == KEPT


@pytest.mark.parametrize("command", ["run", "calibrate", "trace"])
def test_no_command_samples_sealed_prompts_unasked(command, tmp_path, capsys):
    words = [*QUICK, "method=teacache", f"out={tmp_path}"]
    for more in (["prompts=sealed"], [f"prompts.file={PROMPTS / 'sealed.txt'}"]):
        assert KEPT in error_line(call(command, *words, *more, capsys=capsys))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("words", [["prompts=sealed"], ["prompts.file=sealed.txt"]])
def test_a_release_says_so(words):
    assert read_prompts(compose([*words, "prompts.sealed=false"]).prompts) == list(SEALED)


@pytest.mark.parametrize("name", [name for name in LISTS if name != "sealed"])
def test_the_other_lists_are_read_as_they_are(name):
    assert read_prompts(compose([f"prompts={name}"]).prompts) == list(shipped_prompts(name))


def test_no_prompt_is_in_two_lists():
    every = [prompt for name in LISTS for prompt in shipped_prompts(name)]
    assert len(every) == len(set(every)) == 4 * 64


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["prompts=heldout"], "heldout"),
        (["prompts=sealed", "prompts.sealed=false"], "sealed"),
        (["prompts=inline", f"prompts.text=[a cat,{shipped_prompts('heldout')[3]}]"], "heldout"),
    ],
)
def test_nothing_is_fitted_on_prompts_that_methods_are_compared_on(words, name, capsys):
    said = call("calibrate", "method=teacache", "model.steps=7", *words, capsys=capsys)
    assert f"nothing is fitted on the {name} prompts" in error_line(said) and "prompts=calibration" in said.err
