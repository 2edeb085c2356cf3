"""What a metric is called in tables, which way it points, and which function computes it. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A metric as tables know it.

    Attributes:
        title: column head, with its unit.
        function: path of the metric's function from `eval.metrics` on: `fidelity.psnr`. See `eval.metrics.metric`.
        digits: decimals shown.
        better: `higher` or `lower`.
        identical: the value that two equal sets of samples get, where it is infinite or trivial; shown as `same`.
        check: path of a function that gets the parameters alone, before anything is sampled, and refuses those that the
            metric cannot be computed with; empty if their types say it all.
        per: what the metric has one value of: `sample`, `prompt` for one that compares the seeds of a prompt, or `set`
            for one of all samples together, which has a mean alone.
        elsewhere: it can be read from the results file of another package, which has the mean alone.
    """

    title: str
    function: str
    digits: int
    better: str = "higher"
    identical: float | None = None
    check: str = ""
    per: Literal["sample", "prompt", "set"] = "sample"
    elsewhere: bool = False


METRICS: Mapping[str, Column] = {
    "psnr": Column("PSNR (dB)", "fidelity.psnr", 2, identical=float("inf")),
    "ssim": Column("SSIM", "fidelity.ssim", 3, identical=1.0),
    "ms_ssim": Column("MS-SSIM", "fidelity.ms_ssim", 3, identical=1.0),
    "lpips": Column("LPIPS", "fidelity.lpips", 3, "lower", identical=0.0, check="fidelity.check_lpips"),
    "st_lpips": Column("ST-LPIPS", "fidelity.st_lpips", 3, "lower", identical=0.0),
    "lite0_distance": Column("Lite0 distance", "lite0.lite0_distance", 3, "lower", identical=0.0),
    "fid": Column("FID", "distribution.fid", 2, "lower", identical=0.0, per="set"),
    "kid": Column("KID x1000", "distribution.kid", 2, "lower", per="set"),
    "frechet_lite0": Column(
        "Frechet (EffNet-Lite0)",
        "distribution.frechet_lite0",
        2,
        "lower",
        identical=0.0,
        check="distribution.check_frechet_lite0",
        per="set",
    ),
    "clip_score": Column("CLIP score", "text.clip_score", 2, check="text.check_clip_score"),
    "seed_rank": Column("seed rank", "seeds.seed_rank", 3, identical=1.0, check="seeds.check_seed_rank", per="prompt"),
    "diversity": Column("diversity", "seeds.diversity", 3, per="prompt"),
    "image_reward": Column("ImageReward", "preference.image_reward", 3),
    "hpsv2": Column("HPSv2", "preference.hpsv2", 4, check="preference.check_hpsv2"),
    "pick_score": Column("PickScore", "preference.pick_score", 3),
    "vbench_quality": Column(
        "VBench quality",
        "vbench_quality.vbench_quality",
        2,
        check="vbench_quality.check_vbench_quality",
        elsewhere=True,
    ),
}
