"""`spectrum bench`: what this machine can do, and what models are estimated to take on it."""

import contextlib
import io
import json
import statistics

import pytest
import torch
from command import call, error_line
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from spectrum.bench import capability, estimates, rates
from spectrum.bench.capability import embedded_seconds
from spectrum.bench.estimates import REACHED, Rates, between, estimate, method_words, seconds_of
from spectrum.bench.flops import StepFlops, step_flops, without_weights
from spectrum.commands.bench import main, print_bench
from spectrum.config.compose import compose
from spectrum.config.reader import RESULTS
from spectrum.config.sampling import Sampling
from spectrum.core.errors import SpectrumError
from spectrum.models.pipelines import load_pipeline

CPU = torch.device("cpu")
H100 = Rates({"bfloat16": 738.8, "float16": 738.8, "float32": None}, 2.6e12, 300e-6)
"""What the GPU of results/gpu was measured to do; the sum's rate and the hook are about right."""


@pytest.fixture(scope="module")
def found():
    """What the command prints as JSON."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["models=flux,flux_schnell,hidream", "device=cpu", "format=json"]) == 0
    return json.loads(printed.getvalue())


@pytest.fixture(scope="module")
def text(found):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        print_bench(found, Console(width=80, file=printed))
    return printed.getvalue()


def test_everything_is_measured(found):
    measured = found["measured"]
    assert measured["seconds"] > 0
    assert all(rate > 0 for rate in measured["matmul_tflops"].values() if rate is not None)
    assert set(measured["matmul_tflops"]) == {"float32", "bfloat16", "float16"}
    ratio = measured["sum_bytes_per_second"] / measured["copy_bytes_per_second"]
    assert measured["sum_of_copy"] == pytest.approx(ratio) and ratio > 0
    assert 0 < measured["hook_us"]["forecast"] < measured["hook_us"]["hook"]
    assert found["machine"]["hardware"]["device"] == "cpu" and "load_average" in found["machine"]


def test_the_embedded_models_seconds_are_those_of_its_steps(found):
    embedded = found["measured"]["embedded"]
    sides = embedded["sides"]
    assert {name: row["runs"] for name, row in sides.items()} == {"full": 50, "14": 14, "10": 10}
    for name, row in sides.items():
        skipped = 0 if name == "full" else row["skipped_ms"]
        ms = row["runs"] * row["run_ms"] + (50 - row["runs"]) * skipped
        assert row["seconds"] == pytest.approx(ms / 1000)
        assert row["speedup"] == pytest.approx(sides["full"]["seconds"] / row["seconds"])
    assert sides["full"]["skipped_ms"] is None


def test_the_text_fits_and_says_what_is_measured_and_what_is_not(found, text):
    assert max(map(len, text.splitlines())) <= 80
    measured, _, estimated = text.partition("Estimated, not measured: one sample's denoising")
    assert "Measured here, in" in measured and "us at a skipped step" in measured
    flux, schnell, hidream = found["estimated"]["models"]
    assert f"{flux['tflop']:.3g}" == "74.4" and "74.4" in estimated and "1024x1024, 50 steps" in estimated
    assert schnell["14"] is None and schnell["without"].keys() == {"14", "10"} and not flux["without"]
    assert all(f"flux_schnell: {why}" in " ".join(estimated.split()) for why in schnell["without"].values())
    assert hidream["reason"].startswith("its operations cannot be counted without weights")
    assert "hidream: its operations cannot be counted" in estimated and "TFLOP" not in measured.partition("model=")[2]
    assert "For tiny the same estimate says" in estimated and "52 % of the rate" in " ".join(estimated.split())


def test_a_machine_without_weights_says_what_to_type(found, text):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        none = {**found, "estimated": {**found["estimated"], "models": []}}
        print_bench(none, Console(width=80, file=printed))
    assert "No weights of other models are on this machine: type models=flux,sdxl" in printed.getvalue()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("models=fluxx", "models=fluxx is unknown (did you mean flux?)"),
        ("models=", "models= is unknown"),
        ("model=flux", "unknown option model=flux (did you mean models?)"),
        ("format=xml", "format=xml is unknown: type format=text or format=json"),
        ("method=spectrun", "method=spectrun is unknown (did you mean spectrum?)"),
        ("method=teacache", "decides by data at which steps it skips, so nothing can be estimated"),
        ("method=fora_modules", "works inside the blocks, so nothing can be estimated"),
        ("method=none", "method=none skips nothing"),
        ("method=magcache", "method=magcache cannot be measured as it is (magcache has no coefficients for the model"),
        ("method=planned", "method=planned cannot be measured as it is (model=tiny: type runs="),
        ("device=nope", "device=nope cannot be used here"),
    ],
)
def test_a_bad_option_is_refused_with_one_line(word, says, capsys, monkeypatch):
    monkeypatch.setattr(capability, "rates_of", lambda device: pytest.fail("nothing is measured before it is refused"))
    assert says in error_line(call("bench", word, capsys=capsys))


def toy(name, *words):
    return compose([f"model={name}", "model.weights=tiny", "method=none", "batch=1", *words])


@pytest.mark.parametrize(("name", "calls"), [("flux", 1), ("wan21_1_3b", 2), ("sdxl", 1), ("flux_control", 1)])
def test_operations_counted_without_weights_are_those_of_real_ones(name, calls):
    config = toy(name)
    sampling = Sampling.of(config)
    real = step_flops(load_pipeline(config.model, CPU), sampling)
    assert step_flops(without_weights(config.model), sampling) == real
    assert real.calls == calls and 0 < (real.outside or 0) < real.total


def test_operations_are_those_of_the_calls_of_one_step():
    """Counted by hand around one call of the denoiser; those before the loop are not among them."""
    config = toy("flux")
    pipe, given = load_pipeline(config.model, CPU), []
    handle = pipe.transformer.register_forward_pre_hook(lambda m, args, kwargs: given.append(kwargs), with_kwargs=True)
    step = step_flops(pipe, Sampling.of(config))
    handle.remove()
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with torch.no_grad(), math, FlopCounterMode(display=False) as counter:
        pipe.transformer(**given[0])
    assert step.total == counter.get_total_flops() and step.calls == len(given) == 1


def test_a_larger_picture_takes_more_and_nothing_is_allocated():
    small, large = (toy("flux", f"model.height={side}", f"model.width={side}") for side in (64, 256))
    few, many = (step_flops(without_weights(one.model), Sampling.of(one)).total for one in (small, large))
    assert many > 10 * few
    pipe = without_weights(compose(["model=flux", "model.weights=random"]).model)
    assert all(p.is_meta for p in pipe.transformer.parameters()) and pipe.transformer.num_parameters() > 11e9


@pytest.mark.parametrize("name", sorted(REACHED))
def test_the_shares_are_those_of_the_times_on_the_gpu(name):
    peak = json.loads((RESULTS / "gpu" / "ceilings.json").read_text())["matmul_tflops"]
    rounds = json.loads((RESULTS / "gpu" / f"{name}.json").read_text())["rounds"]
    ms = statistics.median(ms for one in rounds for ms in one["full"]["ms"]["step"])
    config = compose([f"model={name}", "model.weights=random", "method=none", "batch=1"])
    step = step_flops(without_weights(config.model), Sampling.of(config))
    assert step.total / 1e9 / ms / peak == pytest.approx(REACHED[name], abs=6e-4)


def test_an_estimate_of_the_gpu_holds_what_was_measured_there():
    row = estimate("flux", method_words("spectrum"), H100)
    for key, measured in (("full", 9.24), ("14", 2.63), ("10", 1.90)):
        assert row[key]["low"] < measured < row[key]["high"]
        assert row[key]["middle"] == pytest.approx(measured, rel=0.1)
    assert (row["steps"], row["dtype"], row["size"]) == (50, "bfloat16", "1024x1024")


def test_an_estimate_by_hand():
    step = StepFlops(total=100 * 10**12, outside=10**12, calls=2)
    own = Rates({"bfloat16": 100.0}, 1e9, 0.01)
    found = seconds_of(step, steps=50, runs=10, stored=5e8, dtype="bfloat16", rates=own)
    work = 10 * 1.0 + 40 * 0.01
    for key, seconds in between(work).items():
        assert found[key] == pytest.approx(seconds + 40 * (0.5 + 2 * 0.01))
    assert found["low"] < found["middle"] < found["high"]
    assert between(1.0)["middle"] == pytest.approx(1 / sorted(REACHED.values())[2])


def test_what_a_machine_cannot_multiply_has_no_estimate():
    row = estimate("flux", ["method=fora"], Rates({"bfloat16": None}, 1e9, 0.0))
    assert row["reason"] == "this machine has no products of bfloat16 matrices"


def test_a_method_that_cannot_run_so_often_says_why():
    row = estimate("flux", ["method=magcache"], Rates({"bfloat16": 738.8}, 1e9, 0.0))
    assert row["10"] is None and "cannot run exactly 10 of 50 steps" in row["without"]["10"]


def test_a_skipped_step_costs_what_the_method_holds(monkeypatch):
    monkeypatch.setattr(estimates, "RUNS", (10,))
    slow = Rates({"bfloat16": 738.8}, 1e9, 0.0)
    spectrum, fora, output = (
        estimate("flux", words.split(), slow)["10"]["low"]
        for words in ("method=spectrum", "method=fora", "method=spectrum method.site=output")
    )
    feature = 4096 * 3072 * 2 / 1e9
    assert spectrum - fora == pytest.approx(40 * 9 * feature), "ten features against one"
    assert fora - output == pytest.approx(40 * 2 * feature, rel=0.01), "and the last layers, which are little"


def test_a_count_that_fails_says_why():
    with pytest.raises(SpectrumError, match="cannot be counted without weights"):
        step_flops(without_weights(toy("hidream").model), Sampling.of(toy("hidream")))


def test_rates_are_of_the_work_that_is_done(monkeypatch):
    """At one millisecond for all work the rates follow from its size alone."""
    monkeypatch.setattr(rates, "milliseconds", lambda work, cuda, repeats: work() is None or 1.0)
    assert rates.matmul_tflops(64, torch.float32, CPU) == pytest.approx(2 * 64**3 / 1e9)
    assert rates.copy_bytes_per_second(1000, CPU) == pytest.approx(2_000_000)
    assert rates.sum_bytes_per_second(CPU, torch.bfloat16, (10, 20), 4) == pytest.approx(5 * 10 * 20 * 2 * 1000)


def test_another_method_is_measured_as_such():
    sides = embedded_seconds(["method=fora"], [10], CPU)["sides"]
    assert {name: row["runs"] for name, row in sides.items()} == {"full": 50, "10": 10}
    assert sides["full"]["skipped_ms"] is None and sides["10"]["skipped_ms"] > 0


def test_seconds_follow_from_the_medians_of_the_steps():
    spent = {"full": ([10.0, 12.0, 90.0], []), "2": ([10.0, 10.0], [1.0, 2.0, 99.0])}
    rows = capability._rows({"full": range(4), "2": [0, 3]}, spent, 4)
    assert rows["full"] == {
        "runs": 4,
        "run_ms": 12.0,
        "skipped_ms": None,
        "seconds": 0.048,
        "speedup": 1.0,
        "efficiency": 1.0,
    }
    assert rows["2"]["seconds"] == pytest.approx(0.024) and rows["2"]["speedup"] == pytest.approx(2)
    assert rows["2"]["efficiency"] == pytest.approx(1)
