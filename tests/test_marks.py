"""What a watched call is taken apart into, on toys of several families, and the ledger by hand."""

import gzip
import json
import time
from types import SimpleNamespace

import pytest
import torch
from cases import method_of, skipping
from rich.console import Console
from subjects import PROMPTS, STEPS, subject_of
from torch import nn
from torch.autograd import DeviceType

from spectrum.api import Accelerated
from spectrum.bench import profiling
from spectrum.bench.marks import REST, WHOLE, parts_of, stacks_of
from spectrum.bench.profile_stage import print_profile
from spectrum.bench.profiling import Profiled, window_of
from spectrum.bench.sampling import sample_batch
from spectrum.bench.time_ledger import Ledger, conclusion, heads_and_rows
from spectrum.bench.timing import Side, prove
from spectrum.bench.watch import Watch
from spectrum.config.sampling import Sampling


def profiled_toy(name, method, *words):
    """The ledger of a toy, and the report of the same call without marks."""
    subject = subject_of(name)
    side, batch = Side(method_of(method, *words), Sampling.of(subject.config)), PROMPTS[: subject.batch]
    with Accelerated(subject.pipe, side.method) as handle:
        sample_batch(subject.pipe, batch, side.sampling)
        report = handle.report()
        kinds, steps = Profiled(handle, side, batch).watched()
    return Ledger(kinds, steps, {}), report


@pytest.mark.parametrize("name", ["flux", "wan22_a14b", "sdxl", "cosmos_video"])
def test_the_kinds_of_steps_are_those_of_the_report(name):
    """Wan 2.2 has two experts, SDXL a UNet, and Cosmos 1 steps its scheduler twice at each step."""
    ledger, report = profiled_toy(name, "fora")
    runs = {step for branch in report.values() for step in branch["run_steps"]}
    assert [n for n, kind in enumerate(ledger.kinds) if kind == "run"] == sorted(runs) and len(ledger.kinds) == STEPS
    run, skipped = ledger.parts("run"), ledger.parts("skipped")
    assert run["blocks"] > 0 and "blocks" not in skipped and skipped["forecast"] > 0
    for own in ledger.steps:
        assert min(own.values()) > -1e-3 and own["scheduler"] > 0


def test_where_nothing_of_the_denoiser_runs_only_the_hook_takes_time():
    ledger, _ = profiled_toy("flux", "fora", "method.site=output")
    assert set(ledger.parts("skipped")) == {"forecast", "decision", "denoiser", "scheduler", "loop"}


def test_methods_inside_the_blocks_have_time_there_at_skipped_steps():
    ledger, _ = profiled_toy("flux", "fora_modules")
    assert ledger.parts("skipped")["blocks"] > 0 and ledger.parts("skipped")["forecast"] > 0


def test_reading_a_signal_is_part_of_the_decision():
    """TeaCache calls the denoiser up to its first block for it, also at a step that is then skipped."""
    subject, method = subject_of("flux"), skipping("flux", "teacache")
    side, batch = Side(method, Sampling.of(subject.config)), PROMPTS[: subject.batch]
    with Accelerated(subject.pipe, method) as handle:
        sample_batch(subject.pipe, batch, side.sampling)
        ledger = Ledger(*Profiled(handle, side, batch).watched(), {})
    run, skipped = ledger.parts("run"), ledger.parts("skipped")
    assert "blocks" in run and not {"blocks", "context_embedder"} & skipped.keys()
    assert skipped["decision"] > skipped["scheduler"]


def test_sections_are_all_there_and_what_is_between_them_is_in_none(monkeypatch):
    subject = subject_of("framepack")
    decode, decoded = subject.pipe.vae.decode, []

    def slow(*args, **kwargs):
        time.sleep(1)
        decoded.append(None)
        return decode(*args, **kwargs)

    monkeypatch.setattr(subject.pipe.vae, "decode", slow)
    ledger, report = profiled_toy("framepack", "fora")
    assert decoded and len(report) == 2 and len(ledger.kinds) == 2 * STEPS
    assert max(sum(own.values()) for own in ledger.steps) < 1000


def test_nothing_is_left_behind_and_the_samples_are_the_same():
    subject = subject_of("flux")
    side, batch = Side(method_of("fora"), Sampling.of(subject.config)), PROMPTS[:2]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in subject.pipe.transformer.modules()]
    step = vars(subject.pipe.scheduler).get("step")
    with Accelerated(subject.pipe, side.method) as handle:
        prove(subject.pipe, side, batch)
        alone = sample_batch(subject.pipe, batch, side.sampling)
        profiled = Profiled(handle, side, batch)
        watch = Watch(subject.pipe, STEPS, parts=profiled.marks.parts, whole=WHOLE)
        with watch.on(), profiled.marks.on(watch):
            assert torch.equal(sample_batch(subject.pipe, batch, side.sampling), alone)
        assert not {"store", "step_of"} & vars(handle.hooks[0]).keys()
    now = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in subject.pipe.transformer.modules()]
    assert now == hooks and vars(subject.pipe.scheduler).get("step") is step
    assert torch.equal(subject.sample(), subject.plain)


def test_a_watchs_own_times_add_up_to_what_it_says_of_steps_and_of_the_whole():
    subject = subject_of("flux")
    with Accelerated(subject.pipe, method_of("fora")) as handle:
        sample_batch(subject.pipe, PROMPTS[:2], Sampling.of(subject.config))
        profiled = Profiled(handle, Side(method_of("fora"), Sampling.of(subject.config)), PROMPTS[:2])
        watch = Watch(subject.pipe, STEPS, parts=profiled.marks.parts, whole=WHOLE)
        with watch.on(), profiled.marks.on(watch):
            subject.sample()
    told, own = watch.milliseconds(), watch.own_milliseconds()
    assert [sum(step.values()) for step in own] == pytest.approx(told["step"], abs=1e-3)
    assert sum(told["step"]) == pytest.approx(1000 * watch.seconds, rel=0.05)
    inner = [sum(v for k, v in step.items() if k not in ("scheduler", "loop")) for step in own]
    assert inner == pytest.approx(told["denoiser"], abs=1e-2)


def test_a_call_that_steps_its_scheduler_twice_is_traced(tmp_path):
    """Cosmos 1: the profiler starts once and stops once, and a step is counted once."""
    subject = subject_of("cosmos_video")
    side, batch = Side(method_of("fora"), Sampling.of(subject.config)), PROMPTS[: subject.batch]
    told = []
    with Accelerated(subject.pipe, side.method) as handle:
        sample_batch(subject.pipe, batch, side.sampling)
        profiled = Profiled(handle, side, batch)
        kinds, _ = profiled.watched()
        watch = Watch(subject.pipe, STEPS, before_step=told.append)
        with watch.on():
            sample_batch(subject.pipe, batch, side.sampling)
        assert told == list(range(STEPS + 1))
        calls = profiled.traced(range(1, STEPS), kinds, tmp_path / "trace.json.gz")
    assert calls.keys() == {"run", "skipped"} and "blocks" in calls["run"] and "blocks" not in calls["skipped"]


def test_a_step_with_two_ranges_is_counted_once():
    def event(name, above=None):
        return SimpleNamespace(name=name, cpu_parent=above, device_type=DeviceType.CPU, kernels=[])

    steps = [event("step 1 run"), event("step 1 run"), event("step 2 run")]
    events = [*steps, *(event("aten::add", above) for above in steps), event("aten::mul", steps[2])]
    assert profiling.calls_of(events, set(), False) == {"run": {"loop": {"operators": 2.0}}}


def test_a_call_that_fails_stops_the_profiler(tmp_path, monkeypatch):
    subject = subject_of("flux")
    side, batch = Side(method_of("fora"), Sampling.of(subject.config)), PROMPTS[:2]
    with Accelerated(subject.pipe, side.method) as handle:
        sample_batch(subject.pipe, batch, side.sampling)
        profiled = Profiled(handle, side, batch)
        kinds, _ = profiled.watched()

        def broken(*args, **kwargs):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(subject.pipe.scheduler, "step", broken)
            with pytest.raises(KeyboardInterrupt):
                profiled.traced(range(STEPS), kinds, tmp_path / "trace.json.gz")
        assert not torch.autograd._profiler_enabled()
        assert profiled.traced(range(STEPS), kinds, tmp_path / "trace.json.gz")


def test_where_weights_are_offloaded_the_device_is_the_one_that_computes():
    subject = subject_of("flux")
    offloaded = SimpleNamespace(device=torch.device("cpu"), _execution_device=torch.device("cuda"))
    assert Watch(offloaded, STEPS)._cuda and not Watch(subject.pipe, STEPS)._cuda


def test_a_large_trace_has_some_steps_of_each_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "MOST", 1)
    monkeypatch.setattr(profiling, "label", lambda config: "mine")
    subject = subject_of("flux")
    job = SimpleNamespace(config=subject.config, method=method_of("fora"), samples=PROMPTS[:2], folder=tmp_path)
    content = profiling.profile(subject.pipe, job)
    first, last = content["trace"]["steps"]
    with gzip.open(tmp_path / "trace.json.gz", "rt") as file:
        names = {e["name"] for e in json.load(file)["traceEvents"] if e.get("name", "").startswith("step ")}
    assert first > 0 and len(names) == last - first + 1 < STEPS
    assert {name.split()[2] for name in names} == {"run", "skipped"}
    assert f"the steps {first} to {last}" in (tmp_path / "ledger.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.json", "ledger.md", "trace.json.gz"]


HARDWARE = {"device": "cuda", "gpu": "a GPU", "threads": 8, "cpu": "a CPU", "offload": "model"}
R, S, M = "run", "skipped", "mixed"


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ([R] * 5, range(1, 3)),
        ([R, S], range(0, 2)),
        ([R, R, S, R, S, S, R], range(1, 5)),
        ([R, S, S, S, R, S, S, R, R], range(4, 8)),
        ([R, R, R, S, M, S, R], range(1, 6)),
    ],
)
def test_the_window_is_the_shortest_that_has_two_of_each(kinds, found):
    assert window_of(kinds) == found


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer_blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.embedders = nn.ModuleList([nn.Linear(2, 2)])
        self.scheduler, self.norm_out = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))


def test_parts_are_the_blocks_and_the_outermost_other_modules():
    model = Nested()
    assert stacks_of(model) == ("transformer_blocks",)
    labels = [name.partition(" ")[0] for name in parts_of(model, stacks_of(model))]
    assert labels == ["blocks", "blocks", "embedders", "scheduler_", "norm_out"]
    assert not {"scheduler_", "norm_out"} & REST.keys()
    assert stacks_of(nn.Sequential(nn.Linear(2, 2))) == ()


def test_a_ledger_by_hand(capsys):
    kinds = [R, S, R, M]
    steps = [{"blocks": 8.0, "loop": 2.0}, {"forecast": 1.0, "loop": 1.0}, {"blocks": 10.0, "loop": 4.0},
             {"blocks": 3.0, "loop": 1.0}]  # fmt: skip
    ledger = Ledger(kinds, steps, {R: {"blocks": {"operators": 3.0, "kernels": 5.0}}})
    assert ledger.milliseconds(R) == 12.0 and ledger.parts(R) == {"blocks": 9.0, "loop": 3.0}
    assert ledger.speedup == pytest.approx(4 * 12 / 30)
    assert ledger.limit is None and ledger.efficiency is None, "a mixed step is neither run nor skipped"
    pure = Ledger(kinds[:3], steps[:3], {})
    assert pure.speedup == pytest.approx(3 * 12 / 26) and pure.speedup <= pure.limit == pytest.approx(3 / 2)
    assert "Of 3 steps 2 ran: at most 1.500x. By these times it is 1.385x, 92.3 % of" in conclusion(pure.content())
    content = ledger.content()
    heads, rows = heads_and_rows(content)
    assert heads == [
        "ms in a step",
        *["ran", "share", "calls"],
        *["skipped", "share", "calls"],
        "mixed",
        "share",
        "calls",
    ]
    assert rows[0][:5] == ["blocks", "9.000", "75.0 %", "3/5", "-"] and rows[-1][1:4] == ["12.0", "100.0 %", "3/5"]
    assert "Of 4 steps 2 ran, 1 were mixed. By these times it is 1.600x; skipped" in conclusion(content)
    assert "at most" not in conclusion(content) and "skipped steps took 6.7 % of the call" in conclusion(content)
    shown = {
        **content,
        "trace": {"file": "trace.json.gz", "steps": [0, 3], "bytes": 1},
        "environment": {"hardware": HARDWARE},
    }
    print_profile(shown, Console(width=80))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80 and "mixed" in out and "calls" not in out.partition("A share")[0]
    assert "calls" not in heads_and_rows(content, most=2)[0]
    assert "Measured on cuda (a GPU), 8 threads of a CPU, offload=model." in " ".join(out.split())
    assert "nothing was skipped" in conclusion(Ledger([R], steps[:1], {}).content())


def test_a_ledger_without_times_can_be_read():
    content = Ledger([R, S], [{"loop": 0.0}, {"loop": 0.0}], {}).content()
    assert content["speedup"] is None and content["efficiency"] is None and content["limit"] == 2
    assert heads_and_rows(content)[1][-1][1:3] == ["0.000", "-"]
    assert conclusion(content) == "Of 2 steps 1 ran: at most 2.000x. They took no time that can be told."
