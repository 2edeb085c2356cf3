import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from toys import Toy, toy_flux

from spectrum.config.compose import compose
from spectrum.config.schema import ModelConfig
from spectrum.models.pipelines import load_pipeline

FAST = {
    "audit_parts", "baselines", "cache_hook", "calibrate", "code", "comparison", "current_step", "differences",
    "distribution", "examples", "fidelity", "figures", "first_user_library", "first_user_metrics", "forecast",
    "given_schedule", "history", "hook_parts", "imports", "latency", "lite0", "lpips", "method", "metric",
    "metric_files", "pick_score", "pictures", "preference", "private_api", "probe", "quality", "raft", "refused",
    "registry", "requirements", "samples", "schedule", "sealed", "seeds", "settings", "signals", "sites", "statistics",
    "table_parts", "tables", "text", "timing", "vbench", "video",
}  # fmt: skip
"""The files whose tests a developer runs at each save; of tests/test_hook.py those on toy FLUX are added."""
HOOKS = {"composition", "machines"}
"""Files that run parts of spectrum/hooks which no fast test reaches: compiled, offloaded and parallel denoisers."""
MARKED = {"conformance": "conformance", "docs": "docs", "readme": "docs", "wheel": "wheel"}


def pytest_collection_modifyitems(items):
    """Mark tests by their file."""
    for item in items:
        subject = item.path.stem.removeprefix("test_")
        given = item.callspec.params if hasattr(item, "callspec") else {}
        if subject in FAST or (subject == "hook" and given.get("subject") == "toy"):
            item.add_marker(pytest.mark.fast)
        elif subject in MARKED:
            item.add_marker(getattr(pytest.mark, MARKED[subject]))
        else:
            item.add_marker(pytest.mark.slow)
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
