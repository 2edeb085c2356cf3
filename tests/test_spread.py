"""Batches on several pipelines are worked on at the same time, and what comes out is the same."""

import threading
import time

import pytest
from command import call, error_line

from spectrum.bench import fitting
from spectrum.planning.spread import spread
from spectrum.records.plan_file import read_plan


class Batch:
    def __init__(self, player):
        self.player = player


def test_each_pipeline_has_a_thread_and_the_order_stays():
    players = [object(), object()]
    both = threading.Barrier(2, timeout=30)
    seen = {}

    def work(batch, number):
        if number < 2:
            both.wait()  # ends only if the first batch of each pipeline is worked on at the same time
        seen.setdefault(id(batch.player), set()).add(threading.get_ident())
        return 10 * number

    batches = [Batch(players[number % 2]) for number in range(5)]
    assert spread(work, batches, range(5)) == [0, 10, 20, 30, 40]
    assert [len(threads) for threads in seen.values()] == [1, 1]
    assert not set.intersection(*seen.values())


def test_what_a_thread_raises_is_raised():
    def work(batch):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        spread(work, [Batch(object()), Batch(object())])


def test_after_an_error_no_other_batch_is_begun():
    players, failed, begun = [object(), object()], threading.Event(), []

    def work(batch, number):
        begun.append(number)
        if number == 0:
            failed.set()
            raise ValueError("no")
        failed.wait(30)
        time.sleep(0.2)  # until the other thread has noted the error

    with pytest.raises(ValueError, match="no"):
        spread(work, [Batch(players[number % 2]) for number in range(8)], range(8))
    assert set(begun) <= {0, 1}


def test_a_fit_on_two_pipelines_is_that_on_one(tmp_path, capsys, monkeypatch):
    """All that follows from the samples is the same to the last bit."""
    players = []
    made = fitting.Rollouts
    monkeypatch.setattr(fitting, "Rollouts", lambda player, call: players.append(player) or made(player, call))
    words = ["model=tiny", "runs=4", "model.steps=8", "prompts.limit=4", "batch=2", "device=cpu", f"out={tmp_path}"]
    plans = []
    for name, more in (("one", ()), ("two", ("devices=cpu,cpu",))):
        said = call("fit", *words, *more, f"to={tmp_path / name}", capsys=capsys)
        assert said.code == 0, said.err
        for journal in (tmp_path / "plans").glob("*.journal"):
            journal.unlink()
        plans.append(read_plan(tmp_path / name))
    assert [len({*map(id, players[:2])}), len({*map(id, players[2:])})] == [1, 2]
    one, two = plans
    assert (one.run_steps, one.weights, one.expected) == (two.run_steps, two.weights, two.expected)
    assert one.full_runs == two.full_runs


def test_a_device_that_is_not_there_is_refused(capsys):
    said = call("fit", "model=tiny", "runs=4", "devices=cpu,nowhere", capsys=capsys)
    assert "device=nowhere cannot be used here" in error_line(said)


def test_more_devices_than_batches_are_refused(capsys):
    said = call("fit", "model=tiny", "runs=4", "devices=cpu, cpu", capsys=capsys)
    assert "8 samples in batches of 16 leave some of 2 devices idle: type batch=4" in error_line(said)
