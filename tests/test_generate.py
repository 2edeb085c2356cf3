"""Cases 19 and 20: files, seeds, resuming. The embedded model at a few steps."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from typed import typed

from spectrum.bench import generate as g
from spectrum.bench import saving
from spectrum.bench.identity import sample_id, settings_id
from spectrum.bench.ledger import PARTS, Ledger, whole_ledger
from spectrum.bench.made_on import kind_of
from spectrum.bench.prompts import Sample, numbered_samples
from spectrum.bench.sampling import sample_batch
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.config.sampling import Sampling
from spectrum.models.solvers import with_solver

ROOT = Path(__file__).resolve().parent.parent
QUICK = ["model.steps=7", "batch=2", "prompts.limit=5"]


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def job(*overrides):
    config = compose([*QUICK, *overrides])
    return build_method(config.method, config.schedule), Sampling.of(config)


def todo(count=5):
    return numbered_samples([f"a cat {'/' * i} on blue"[:40] for i in range(count)], [0])


def test_case_19_every_prompt_has_its_own_file_and_noise(_tiny, tmp_path):
    method, sampling = job()
    same_text = numbered_samples(["a cat on blue", "a cat on blue", "a/cat on\\blue"], [0, 1])
    ledger = g.generate(_tiny, method, same_text, sampling, tmp_path)
    files = [entry["file"] for entry in ledger]
    assert files == [f"{i:05d}-s{s}.png" for i in range(3) for s in (0, 1)]
    assert len({entry["sha256"] for entry in ledger}) == 6
    assert len({s.noise_seed for s in numbered_samples(["x"] * 500, [0, 1, 2])}) == 1500
    assert Sample(3, "x", 1).noise_seed == Sample(3, "y", 1).noise_seed


def test_samples_keep_their_order_whatever_that_of_the_seeds(_tiny, tmp_path):
    method, sampling = job("batch=1")
    samples = numbered_samples(["a cat on blue", "a key on red"], [1, 0])
    g.generate(_tiny, method, samples[2:3], sampling, tmp_path)
    ledger = g.generate(_tiny, method, samples, sampling, tmp_path)
    assert [(entry["index"], entry["seed"]) for entry in ledger] == [(0, 1), (0, 0), (1, 1), (1, 0)]
    assert ledger == whole_ledger(tmp_path, samples)
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == ledger


@pytest.mark.parametrize("stage", ["first", "middle", "ledger"])
def test_case_20_a_broken_run_resumes_byte_equal(_tiny, tmp_path, monkeypatch, stage):
    method, sampling = job()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    g.generate(_tiny, method, todo(), sampling, whole)
    real, count = saving.write_bytes, {"n": 0}

    def dies(path, data):
        count["n"] += path.suffix == ".png"
        if count["n"] == {"first": 1, "middle": 4, "ledger": 99}[stage]:
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / ".draft-torn").write_bytes(data[: len(data) // 2])
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(saving, "write_bytes", dies)
    if stage == "ledger":
        g.generate(_tiny, method, todo(2), sampling, broken)
        (broken / "samples.jsonl").write_text('{"index": 0, "seed"')
    else:
        with pytest.raises(KeyboardInterrupt):
            g.generate(_tiny, method, todo(), sampling, broken)
    monkeypatch.undo()
    g.generate(_tiny, method, todo(), sampling, broken)
    assert tree(broken) == tree(whole)


@pytest.mark.parametrize("other_ends", [True, False])
def test_processes_share_the_batches_of_a_folder(_tiny, tmp_path, monkeypatch, other_ends):
    """Another process is at the second batch: the others are made meanwhile, and its own if it dies over it."""
    method, sampling = job()
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    ledger = g.generate(_tiny, method, todo(), sampling, whole)
    asked, made, seen = threading.Event(), [], []

    def counting(pipe, batch, *args):
        made.append(batch[0].index)
        if batch[0].index == 4:
            asked.set()
        return sample_batch(pipe, batch, *args)

    def other(claim):
        """Ends its batch, or dies over it, once the last one is being made."""
        with claim:
            held.set()
            asked.wait(60)
            seen.append(list(made))
            if other_ends:
                (shared / "images").mkdir(exist_ok=True)
                for entry in ledger[2:4]:
                    (shared / "images" / entry["file"]).write_bytes((whole / "images" / entry["file"]).read_bytes())
                Ledger(shared, made_on=kind_of(shared)).add(ledger[2:4])

    held = threading.Event()
    thread = threading.Thread(target=other, args=[FileLock(shared / g.CLAIMS / f"{todo()[2].file}.lock")])
    thread.start()
    held.wait(60)
    monkeypatch.setattr(g, "sample_batch", counting)
    assert g.generate(_tiny, method, todo(), sampling, shared) == ledger
    thread.join()
    assert seen == [[0, 4]] and made == ([0, 4] if other_ends else [0, 4, 2])
    assert tree(shared) == tree(whole)


def test_what_a_killed_process_wrote_of_a_line_does_not_count(_tiny, tmp_path):
    method, sampling = job()
    ledger = g.generate(_tiny, method, todo(2), sampling, tmp_path)
    (tmp_path / "samples.jsonl").unlink()
    killed, other, reader = (Ledger(tmp_path, made_on=kind_of(tmp_path)) for _ in range(3))
    killed.add(ledger[:1])
    other.add(ledger[1:])
    (torn,) = [path for path in (tmp_path / PARTS).iterdir() if ledger[0]["file"] in path.read_text()]
    whole = torn.read_text()
    torn.write_text(whole[: len(whole) // 2])
    reader.follow()
    assert list(reader.done) == [ledger[1]["file"]] and whole_ledger(tmp_path, todo(2)) is None
    torn.write_text(whole)
    reader.follow()
    assert reader.entries(todo(2)) == ledger == whole_ledger(tmp_path, todo(2))


def test_an_error_while_a_batch_is_saved_is_raised_and_the_batches_before_it_are_kept(_tiny, tmp_path, monkeypatch):
    method, sampling = job()
    real, sampled = saving.write_bytes, []

    def full(path, data):
        if path.name == todo()[2].file:
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    def counting(pipe, batch, *args):
        sampled.append(batch[0].index)
        return sample_batch(pipe, batch, *args)

    monkeypatch.setattr(saving, "write_bytes", full)
    monkeypatch.setattr(g, "sample_batch", counting)
    with pytest.raises(OSError, match="No space left"):
        g.generate(_tiny, method, todo(), sampling, tmp_path)
    assert whole_ledger(tmp_path, todo(2)) is not None and whole_ledger(tmp_path, todo()) is None
    monkeypatch.setattr(saving, "write_bytes", real)
    sampled.clear()
    g.generate(_tiny, method, todo(), sampling, tmp_path)
    assert sampled == [2, 4] and whole_ledger(tmp_path, todo()) is not None


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_still_to_be_saved_is_saved_when_the_block_is_left(tmp_path, monkeypatch, fails):
    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    if fails:
        monkeypatch.setattr(saving, "write_bytes", full)
    ledger, closed, claim = Ledger(tmp_path), [], ExitStack()
    claim.callback(closed.append, True)
    done = [{"runs": {"cond": [0]}, "calls": {"cond": 1}}]
    with (
        pytest.raises(OSError, match="No space") if fails else nullcontext(),
        saving.Saving(tmp_path, ledger, None) as s,
    ):
        s.save(todo(1), torch.zeros(1, 3, 16, 16), done, claim)
    assert closed == [True] and (whole_ledger(tmp_path, todo(1)) is None) == fails


def test_case_20_a_damaged_picture_is_made_again(_tiny, tmp_path):
    method, sampling = job()
    g.generate(_tiny, method, todo(), sampling, tmp_path)
    before = tree(tmp_path)
    (tmp_path / "images" / "00002-s0.png").write_bytes(b"not a picture")
    (tmp_path / "images" / "00004-s0.png").unlink()
    g.generate(_tiny, method, todo(), sampling, tmp_path)
    assert tree(tmp_path) == before


def test_case_20_killed_for_real(tmp_path):
    words = ["run.py", *QUICK, "timing=0", "probe=0", "prompts.limit=12", "batch=1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, *words, f"out={killed}"], cwd=ROOT, stdout=-3, stderr=-3, start_new_session=True
    )
    deadline = time.time() + 120
    while time.time() < deadline and len(list(killed.rglob("*.png"))) < 3:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 <= len(list(killed.rglob("*.png"))) < 24
    assert typed(*words, f"out={killed}").code == typed(*words, f"out={whole}").code == 0
    pick = ("images/", "samples.jsonl")
    assert {k: v for k, v in tree(killed).items() if any(p in k for p in pick)} == {
        k: v for k, v in tree(whole).items() if any(p in k for p in pick)
    }
    (record,) = (json.loads(p.read_text()) for p in whole.rglob("record.json"))
    assert record["samples"] == 12 and record["id"].startswith("spectrum-") and record["reference"].startswith("none-")


def test_the_id_changes_with_all_that_changes_pixels_and_nothing_else():
    prompts = ["a cat"]

    def name(*words, texts=prompts):
        config = compose(list(words))
        method = build_method(config.method, config.schedule)
        return sample_id(settings_id(config, texts), method)

    base = name()
    for words in (
        ["model.steps=49"], ["method.forecast.blend=0.5"], ["schedule.growth=1"], ["seeds=[1]"],
        ["model.dtype=bfloat16"], ["model.call.true_cfg_scale=2"], ["batch=3"], ["method=fora"], ["model.height=128"],
    ):  # fmt: skip
        assert name(*words) != base
    assert name(texts=["a dog"]) != base
    assert name("timing=9", "probe=0", "out=elsewhere", "device=cpu") == base
    assert name("method=none") == name("method=none", "schedule=growing_window", "schedule.growth=2")


def test_the_second_order_control_shares_the_weights(_tiny):
    other = with_solver(_tiny, "UniPCMultistepScheduler")
    assert other.transformer is _tiny.transformer and type(other.scheduler).__name__ == "UniPCMultistepScheduler"
    assert type(_tiny.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert _tiny.config.scheduler[1] == "FlowMatchEulerDiscreteScheduler"
    _, sampling = job()
    images = [sample_batch(pipe, numbered_samples(["a cat"], [0]), sampling) for pipe in (_tiny, other)]
    assert torch.isfinite(images[1]).all() and not torch.equal(*images)
    _, many = job("model.steps=60")
    fine = sample_batch(_tiny, numbered_samples(["a cat"], [0]), many)
    assert (images[1] - fine).abs().mean() < (images[0] - fine).abs().mean()
