import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from toys import Toy, toy_flux

from spectrum.config import ModelConfig, compose
from spectrum.pipeline import load_pipeline


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
