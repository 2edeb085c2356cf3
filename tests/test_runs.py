"""`run.py` on every model's toy, from the command to the pictures."""

import json

import numpy as np
import pytest
from cases import MODELS
from command import call
from PIL import Image

from spectrum.config.reader import choices, group_file

SHORT = ["method=spectrum", "model.steps=16", "prompts=examples", "prompts.limit=2", "timing=0", "probe=0"]
MADE = {"framepack": 17}
"""Frames that a toy makes, where that is not what it is asked for."""


def test_10_the_list_of_models_fits_80_columns(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    said = call("models", "format=json", capsys=capsys)
    rows = {row["model"]: row for row in json.loads(said.out)}
    assert said.code == 0 and set(rows) == set(choices("model"))
    assert rows["flux"]["fitted"] == ["magcache", "teacache"] and rows["flux"]["exit"] == "norm_out"
    assert rows["flux"]["weights"] == "34 GB" and rows["tiny"]["weights"] == "here"
    assert rows["sdxl"]["refused"] == ["dbcache", "first_block_cache", "seacache", "teacache"]
    said = call("models", capsys=capsys)
    assert said.code == 0 and all(name in said.out for name in rows)
    assert max(len(line) for line in said.out.splitlines()) <= 80


@pytest.mark.parametrize("model", MODELS)
def test_run_ends_with_a_table_and_pictures(model, tmp_path, capsys):
    words = [f"model={model}", "model.weights=tiny", *SHORT, f"out={tmp_path}", f"records={tmp_path / 'records'}"]
    said = call("run", *words, capsys=capsys)
    assert said.code == 0, said.err
    assert "spectrum" in said.out and "PSNR" in said.out and "random weights, toy width" in said.out
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert (
        record["method"]["name"] == "spectrum" and record["nfe"] < 16 and len(record["metrics"]["psnr"]["values"]) == 2
    )
    (folder,) = {path.parent for path in tmp_path.rglob("record.json")}
    for name in ("sheet.png", "timeline.png"):
        assert np.asarray(Image.open(folder / name)).std() > 0
    frames = group_file("model", model)["tiny"].get("frames") or group_file("model", model).get("frames")
    frames = MADE.get(model, frames)
    pictures = sorted((folder / "images").glob("*.png"))
    assert len(pictures) == 2 and getattr(Image.open(pictures[0]), "n_frames", 1) == (frames or 1)
