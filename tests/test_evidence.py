"""A forged record is refused: every leaf of a real one is changed in turn.

Changed as it lies there, it does not fit its own digest. Sealed anew, whatever follows from something else in the
record, or in that of the uncached run, is worked out again and differs. What is left is what was measured or seen once;
only sampling and timing again would show it. A new field has to be put into one of the two lists.
"""

import copy
import dataclasses
import re

import pytest
from by_hand import COMMIT, metric

from eval.tables import verify
from eval.tables.verify import check_record, check_records
from eval.tables.verify_timing import timing_problems
from spectrum.bench.run import run
from spectrum.config.compose import compose
from spectrum.core.errors import SpectrumError
from spectrum.records.digests import record_digest
from spectrum.records.record import parse_record, read_record, record_content

FOLLOWS = (
    "format", "id", "reference", "settings", "code", "label", "model_kind", "model_identity", "spectrum",
    r"model(?!\.(licence|size_gb)$)\..*", r"method\..*", r"schedule\..*",
    r"prompts\.\d+", r"seeds\.\d+", "batch", "samples", "steps", "nfe", r"nfe_by_sample\.\d+", "reference_samples",
    r"runs\.\w+\.\d+", r"weights\.\d+\.(step|sum|l1)", r"cache_bytes\.predicted_per_sample", r"git\.dirty",
    r"metrics\.(?!frechet)\w+\.mean", r"metrics\.\w+\.(asked|id|interval|worst_5_percent|worst_interval)",
    r"metrics\.\w+\.values(\.\d+)?",
    r"metrics\.\w+\.parameters\..*", r"metrics\.\w+\.provenance\.(sha256|samples|reference)",
    r"timing\.(id|batch|nfe|speedup|speedup_end_to_end)", r"timing\.hardware\..*", r"timing\.speedup_interval\.\d",
    r"timing\.seconds_per_sample\.\w+\.\w+", r"timing\.rounds\.\d+\.(nfe|samples\.\d+|runs\.\d+\..*|calls\.\d+\..*)",
    r"timing\.conditions\.(threads|forced|git\.dirty)",
)  # fmt: skip
"""Fields, as patterns of their paths, of which the check refuses any that is changed alone."""
SEEN_ONCE = {
    "for people": (r"model\.(licence|size_gb)", r"prompts_from\..*", r"metrics\.\w+\.warning"),
    "only sampling again shows it": (
        r"digests\.\d+", r"forecast_errors\.\w+\.\d+\.\w+", r"cache_bytes\.seen_per_sample",
        r"metrics\.frechet_lite0\.mean", r"metrics\.\w+\.provenance\.backbone",
    ),
    "only timing again shows it": (r"timing\.rounds\.\d+\.(before|candidate|after)\.(denoise|total)",),
    "where and when": (
        "command", "python", r"packages\..*", r"hardware\..*", r"git\.commit", r"timing\.process",
        r"timing\.conditions\.(load\.\d|clocks_mhz(\.\d)?|date|git\.commit|command)",
    ),
}  # fmt: skip
"""Fields of which nothing else in the records tells: their digest alone says that nobody changed them."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The uncached run and one of FORA, of a toy; as content of their files."""
    out = tmp_path_factory.mktemp("runs")
    words = ["model=flux", "model.weights=tiny", "model.steps=6", "batch=1", "seeds=[0,1]", "probe=1", f"out={out}"]
    words += ["prompts=inline", "prompts.text=['a fox','a drum']"]
    none, own = (
        read_record(run(compose([f"method={m}", f"timing={rounds}", *words])) / "record.json")
        for m, rounds in (("none", 0), ("fora", 7))
    )
    frechet = {"mean": 5.0, "reference": own.samples, "backbone": "a network", "sha256": "ab" * 32}
    metrics = {**own.metrics, "frechet_lite0": metric(own, "frechet_lite0", None, frechet, {"dimensions": 2})}
    where = dataclasses.replace(own.timing.conditions, git=COMMIT)
    timing = dataclasses.replace(own.timing, conditions=where)
    return [
        record_content(r)
        for r in (
            dataclasses.replace(none, git=COMMIT),
            dataclasses.replace(own, git=COMMIT, metrics=metrics, timing=timing),
        )
    ]


def leaves(content, path=()):
    """The path of every number, text, truth and null in JSON content."""
    if isinstance(content, dict):
        return [leaf for key in content for leaf in leaves(content[key], (*path, key))]
    if isinstance(content, list):
        return [leaf for key, value in enumerate(content) for leaf in leaves(value, (*path, key))]
    return [path]


def forged(content, path):
    """The content with the value at a path changed, as little as would matter."""
    made = copy.deepcopy(content)
    place = made
    for key in path[:-1]:
        place = place[key]
    value = place[path[-1]]
    if isinstance(value, bool):
        new = not value
    elif isinstance(value, int):
        new = value + 1
    elif isinstance(value, float):
        new = value * 1.001 + 0.001
    else:
        new = 1.5 if value is None else f"{value}0"
    place[path[-1]] = new
    return made


def sealed_again(content):
    return {**content, "digest": record_digest(content)}


def refused(content, reference):
    """Why a record is not taken; None if it is."""
    try:
        check_record(parse_record(content, "a file"), parse_record(reference, "another file"))
    except SpectrumError as error:
        return str(error)
    return None


def named(path):
    return ".".join(map(str, path))


def among(path, patterns):
    return any(re.fullmatch(pattern, named(path)) for pattern in patterns)


ONCE = tuple(pattern for patterns in SEEN_ONCE.values() for pattern in patterns)


def test_the_records_themselves_hold(pair):
    none, own = pair
    assert refused(none, none) is None and refused(own, none) is None
    assert len(leaves(own)) > 250 and len(own["timing"]["rounds"]) == 7 and own["forecast_errors"]


def test_every_field_is_in_one_of_the_two_lists(pair):
    none, own = pair
    own_digest, untimed = ("digest",), ("timing",)
    paths = [path for path in (*leaves(own), *leaves(none)) if path not in (own_digest, untimed)]
    for path in paths:
        assert among(path, FOLLOWS) != among(path, ONCE), named(path)
    for pattern in (*FOLLOWS, *ONCE):
        assert any(re.fullmatch(pattern, named(path)) for path in paths), f"no field is called {pattern}"


def test_a_record_that_was_changed_is_not_read(pair):
    _, own = pair
    for path in leaves(own):
        with pytest.raises(SpectrumError, match=r"was changed after|is damaged|has format|lacks"):
            parse_record(forged(own, path), "a file")


def test_what_follows_from_something_else_is_worked_out_again(pair):
    none, own = pair
    passed = [
        named(path)
        for path in leaves(own)
        if among(path, FOLLOWS) and refused(sealed_again(forged(own, path)), none) is None
    ]
    assert not passed


def test_the_field_that_is_off_is_named(pair):
    none, own = pair
    for path in (("nfe",), ("metrics", "psnr", "interval"), ("timing", "speedup"), ("timing", "rounds", 1, "nfe")):
        said = refused(sealed_again(forged(own, path)), none)
        assert said and f"the record {own['id']} does not hold: {named(path)} is " in said


def test_a_forged_uncached_run_is_refused_or_refuses_its_rows(pair):
    """Its code alone is free: it caches nothing, and its pictures are those of the model."""
    none, own = pair
    for path in leaves(none):
        if among(path, (*FOLLOWS, r"digests\.\d+")) and path != ("code",):
            made = sealed_again(forged(none, path))
            assert refused(made, made) or refused(own, made), named(path)


@pytest.mark.parametrize(
    "path", ["prompts", "seeds", "digests", "nfe_by_sample", "weights", "metrics.psnr.values", "timing.rounds",
             "timing.rounds.0.samples", "timing.rounds.0.runs", "timing.rounds.0.calls"]
)  # fmt: skip
def test_a_list_that_was_cut_short_is_refused(pair, path):
    none, own = copy.deepcopy(pair)
    place = own
    for key in path.split("."):
        place = place[int(key) if key.isdigit() else key]
    del place[-1]
    assert refused(sealed_again(own), none)


def test_a_record_of_changed_code_is_refused(pair):
    none, own = pair
    for git in (own["git"], own["timing"]["conditions"]["git"]):
        git["dirty"] = True
        assert "dirty is true: it was made with code that no commit holds" in str(refused(sealed_again(own), none))
        git["dirty"] = False


def test_a_metric_of_each_sample_has_its_values(pair):
    none, own = copy.deepcopy(pair)
    gone = dict.fromkeys(("values", "interval", "worst_5_percent", "worst_interval"))
    for name, mean in (("psnr", 45.0), ("ssim", 0.99)):
        entry = own["metrics"][name]
        made = {**entry, **gone, "mean": mean, "provenance": {**entry["provenance"], "samples": own["samples"]}}
        forged_one = sealed_again({**own, "metrics": {**own["metrics"], name: made}})
        assert f"metrics.{name}.values is missing" in str(refused(forged_one, none))


def test_fewer_runs_than_planned_are_refused_though_all_else_fits_them(pair):
    none, own = copy.deepcopy(pair)
    runs = next(iter(own["runs"].values()))
    own["runs"] = {name: runs[:-1] for name in own["runs"]}
    own["nfe_by_sample"], own["nfe"] = [len(runs) - 1.0] * own["samples"], len(runs) - 1.0
    said = str(refused(sealed_again({**own, "timing": None}), none))
    assert f"runs is {runs[:-1]}, and the plan gives {runs}" in said


def test_a_method_of_time_alone_stays_one_without_its_weights(pair):
    none, own = copy.deepcopy(pair)
    own["weights"], own["nfe_by_sample"][1] = [], own["nfe_by_sample"][1] - 1
    own["nfe"] = sum(own["nfe_by_sample"]) / own["samples"]
    assert "nfe_by_sample is " in str(refused(sealed_again(own), none))


def test_prompts_of_another_list_are_not_those_of_the_file_that_is_named(pair):
    none, own = copy.deepcopy(pair)
    own["prompts_from"] = {"file": "heldout.txt", "limit": 2}
    assert "the list heldout.txt gives" in str(refused(sealed_again(own), none))


def test_a_timing_is_at_the_batch_of_the_samples_and_of_several_batches(pair):
    none, own = copy.deepcopy(pair)
    files = own["timing"]["rounds"][0]["samples"]
    for timed in own["timing"]["rounds"]:
        timed["samples"] = files
    assert "timing.rounds are of 1 batches" in str(refused(sealed_again(own), none))
    two = forged(pair[1], ("timing", "batch"))
    assert "timing.batch is 2, and batch and samples gives 1" in str(refused(sealed_again(two), none))


def test_a_timed_sample_ran_as_often_as_when_it_was_sampled(pair):
    """Where the data decide, the plan says nothing of it, and the samples do."""
    own = copy.deepcopy(pair[1])
    own["timing"]["rounds"][0]["runs"][0] = {name: [0] for name in own["runs"]}
    record = parse_record(sealed_again(own), "a file")
    said = " ".join(timing_problems(record, record.timing))
    assert "timing.rounds.0.runs is [1.0], and nfe_by_sample gives" in said


def test_the_timings_of_one_pass_agree_on_the_machine(pair):
    none, own = (parse_record(content, "a file") for content in pair)
    check_records([none, own])
    where = dataclasses.replace(own.timing.conditions, load=[0.0, 0.0])
    other = dataclasses.replace(own, id="fora-2", timing=dataclasses.replace(own.timing, conditions=where))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "check_record", lambda *records: None)
        with pytest.raises(SpectrumError, match=r"are of one pass and say different things of the machine"):
            check_records([none, own, other])


def test_a_record_without_its_uncached_run_is_refused(pair):
    with pytest.raises(SpectrumError, match="and there is no such record: type its command with method=none"):
        check_record(parse_record(pair[1], "a file"), None)


def test_infinite_values_are_those_of_equal_pictures(pair):
    none, own = copy.deepcopy(pair)
    own["digests"][1] = none["digests"][1]
    assert "infinite (null) for other samples" in str(refused(sealed_again(own), none))


def test_whoever_changes_values_and_all_that_follows_is_caught_by_sampling_alone(pair):
    """What the check cannot see, and why one row is sampled again."""
    none, own = pair
    record = parse_record(own, "a file")
    values = [value + 5 for value in record.metrics["psnr"].values]
    better = dataclasses.replace(record, metrics={**record.metrics, "psnr": metric(record, "psnr", values, {}, {})})
    assert refused(record_content(better), none) is None
