"""Sample a model in full and with a caching method from the same noise, and show what was gained and what it cost.

python run.py                                          the embedded model with Spectrum
python run.py model=flux method=taylorseer runs=10     a real model, where its weights are on this machine
python run.py --multirun method=none,fewer_steps,spectrum,fora,taylorseer,teacache runs=14,10
"""

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from spectrum.config import CONFIGS, parse
from spectrum.job import run
from spectrum.main import guarded

os.environ.setdefault("HYDRA_FULL_ERROR", "1")


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def main(composed: DictConfig) -> str:
    """Run one job; the folder it wrote. Bad input ends the process here, before Hydra adds lines of its own."""
    folders: list[Path] = []
    hydra_config = HydraConfig.get()
    group = Path(hydra_config.sweep.dir).name if hydra_config.mode == RunMode.MULTIRUN else None
    code = guarded(lambda: folders.append(run(parse(composed, hydra_config.overrides.task), group)))
    if code:
        sys.exit(code)
    return str(folders[0])


if __name__ == "__main__":
    sys.exit(guarded(main))
