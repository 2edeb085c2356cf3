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


def pytest_collection_modifyitems(items):
    """Share the tests out by file, those of the conformance suite by model, so that fixtures are made once."""
    for item in items:
        model = getattr(item, "callspec", None) and item.callspec.params.get("model")
        group = f"{item.path.stem}-{model}" if item.path.stem == "test_conformance" else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


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
