import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from families import CORE
from toys import Toy, toy_flux

from spectrum.config.compose import compose
from spectrum.config.schema import ModelConfig
from spectrum.models.pipelines import load_pipeline

FAST = {
    "arguments", "audit_parts", "baselines", "branches", "cache_hook", "calibrate", "code", "comparison",
    "current_step", "derive", "differences", "distribution", "dmd", "examples", "fidelity", "finite",
    "first_user_library", "first_user_metrics", "forecast", "given_schedule", "history", "hook_parts", "imports",
    "known", "latency", "lite0", "lpips", "meancache", "method", "metric", "metric_files", "pick_score", "pictures",
    "planners", "positions", "preference", "private_api", "probe", "proof", "provenance", "quality", "raft",
    "refused", "registry", "replaced", "requirements", "samples", "schedule", "sealed", "seeds", "settings",
    "signals", "sites", "statistics", "sums", "tables", "text", "timing", "vbench", "video",
}  # fmt: skip
"""The files whose tests a developer runs at each save; of tests/test_hook.py those on toy FLUX are added."""
SECONDS = {
    "comparison": ("test_a_narrow_terminal_shows_two_metrics_and_names_the_others",),
    "first_user_metrics": ("test_samples_and_timing_survive_an_error_in_a_metric",
                           "test_three_seeds_give_metrics_of_a_prompt_and_every_reader_of_the_record_copes"),
    "first_user_library": ("test_6_a_fit_does_not_bind_a_schedule_of_time",),
    "imports": ("test_the_library_is_imported_without_the_bench",),
    "requirements": ("test_14_every_model_is_pinned_or_known_not_to_be",),
    "tables": ("test_torch_is_not_imported",
               "test_check_fails_after_one_digit_of_a_table_is_changed"),
}  # fmt: skip
"""Tests of several seconds in those files, which run with the slow ones; so do those of the tables of all records."""
HOOKS = {"composition", "idle", "machines"}
"""Files that run parts of spectrum/hooks which no fast test reaches: compiled, offloaded and parallel denoisers."""
WHOLE = {
    "audit": ("test_a_committed_row_is_sampled_again_and_its_pictures_are_the_stored_ones[planned-1]",
              "test_a_committed_row_is_sampled_again_and_its_pictures_are_the_stored_ones",
              "test_on_another_cpu_the_pictures_themselves_are_compared",
              "test_pictures_of_a_small_run_come_out_again", "test_runs_and_values_are_those_of_samples_made_again"),
    "bench_scripts": ("test_throughput_compares_loops_batches_and_workers",),
    "distilled": ("test_the_recipe_runs_and_goes_on_with_the_same_settings", "test_it_runs_cached[4-3]"),
    "docs": ("test_a_page_that_adds_something_works_word_by_word[add-a-model.md-4]",
             "test_a_page_that_adds_something_works_word_by_word[add-a-table.md-2]",
             "test_a_page_that_adds_something_works_word_by_word[add-a-metric.md-2]"),
    "eight_bits": ("test_the_script_prints_a_line_for_each_sample",),
    "first_user": ("test_1_the_code_of_a_method_is_part_of_a_run_s_identity",
                   "test_8_a_bad_job_does_not_stop_a_sweep[joblib]"),
    "generate": ("test_case_20_killed_for_real",),
    "launchers": ("test_a_sweep_ends_with_one_comparison[ray]",
                  "test_a_sweep_ends_with_one_comparison[submitit_local]"),
    "sharded": ("test_workers_that_were_killed_are_followed_by_another_number_of_them[1]",
                "test_accelerate_launches_workers"),
    "made_on": ("test_the_command_says_how_a_job_of_one_thread_goes_on",),
    "submit": ("test_a_method_that_meets_every_rule_is_checked_and_then_added",),
    "inner_score": ("test_the_script_scores_what_it_samples",),
    "replay": ("test_a_study_has_every_distance_and_ablation",),
    "spread": ("test_a_fit_on_two_pipelines_is_that_on_one",),
    "tiny": ("test_the_recipe_runs",),
    "tiny_dit": ("test_the_recipe_runs", "test_it_runs_cached[fora]"),
    "tiny_unet": ("test_the_recipe_runs_and_goes_on_from_trained_weights", "test_it_runs_cached[fora]"),
    "train_clip": ("test_the_recipe_runs",),
}  # fmt: skip
"""Tests of a minute or more, whose parts others test: they run with all of conformance under `-m whole`."""
MARKED = {"conformance": "conformance", "docs": "docs", "readme": "docs", "wheel": "wheel"}


EACH = "test_skipped_steps_call_no_block_and_the_true_feature_is_bit_exact"
"""The test of tests/test_models.py that runs for every family each time."""


def covers(given: dict[str, str]) -> bool:
    """Whether a case of conformance is run each time.

    All methods on two families; `spectrum` on every family; a plan on those of `CORE`; and one method of each other
    kind on two more: one with two experts, and one that calls a module twice.
    """
    others = {"taylorseer_modules", "teacache", "first_block_cache", "easycache"}
    return (
        "model" not in given
        or given["model"] in ("flux", "sdxl")
        or given["method"] == "spectrum"
        or (given["model"] in CORE and given["method"] == "planned")
        or (given["model"] in ("wan22_a14b", "cogview4") and given["method"] in others)
    )


def pytest_ignore_collect(collection_path, config):
    """Leave slow files unread where only fast tests are asked for, which spares each process seconds."""
    name = collection_path.stem.removeprefix("test_")
    is_test = collection_path.name.startswith("test_")
    return True if is_test and config.option.markexpr == "fast" and name not in FAST | {"hook"} else None


def pytest_collection_modifyitems(items):
    """Mark tests by their file."""
    for item in items:
        subject = item.path.stem.removeprefix("test_")
        given = item.callspec.params if hasattr(item, "callspec") else {}
        of_all_records = subject == "tables" and "records" in item.fixturenames
        slow = of_all_records or item.originalname in SECONDS.get(subject, ())
        if (subject in FAST and not slow) or (subject == "hook" and given.get("subject") == "toy"):
            item.add_marker(pytest.mark.fast)
        elif subject in MARKED:
            item.add_marker(getattr(pytest.mark, MARKED[subject]))
        else:
            item.add_marker(pytest.mark.slow)
        family = given.get("subject" if subject == "models" else "model", "flux")
        rare = subject in ("models", "runs") and family not in CORE and item.originalname != EACH
        if rare or item.name in WHOLE.get(subject, ()) or (subject == "conformance" and not covers(given)):
            item.add_marker(pytest.mark.whole)
        modules_of_flux = given.get("model") == "flux" and "modules" in given.get("method", "")
        if subject in HOOKS or modules_of_flux:
            item.add_marker(pytest.mark.hooks)


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return compose([]).model


@pytest.fixture(scope="session")
def _tiny(tiny_config):
    return load_pipeline(tiny_config, torch.device("cpu"))


@pytest.fixture
def flux() -> Toy:
    return toy_flux()


@pytest.fixture(params=["tiny", "toy"])
def subject(request) -> Toy:
    """The embedded model, and a toy FLUX of random weights with guidance embedded, as things to sample with."""
    if request.param == "toy":
        return toy_flux()
    return Toy.embedded(request.getfixturevalue("_tiny"))
