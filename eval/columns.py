"""What a metric is called in tables, which way it points, and which function computes it. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A metric as tables know it.

    Attributes:
        title: column head, with its unit.
        function: dotted path of the metric, see `eval.metric`.
        digits: decimals shown.
        better: `higher` or `lower`.
        identical: the value that two equal sets of samples get, where it is infinite or trivial; shown as `same`.
    """

    title: str
    function: str
    digits: int
    better: str = "higher"
    identical: float | None = None


METRICS: Mapping[str, Column] = {
    "psnr": Column("PSNR (dB)", "eval.fidelity.psnr", 2, identical=float("inf")),
    "ssim": Column("SSIM", "eval.fidelity.ssim", 3, identical=1.0),
    "ms_ssim": Column("MS-SSIM", "eval.fidelity.ms_ssim", 3, identical=1.0),
    "lpips": Column("LPIPS", "eval.fidelity.lpips", 3, "lower", identical=0.0),
    "st_lpips": Column("ST-LPIPS", "eval.fidelity.st_lpips", 3, "lower", identical=0.0),
    "fid": Column("FID", "eval.distribution.fid", 2, "lower", identical=0.0),
    "kid": Column("KID x1000", "eval.distribution.kid", 2, "lower"),
    "frechet_lite0": Column("Frechet (EffNet-Lite0)", "eval.distribution.frechet_lite0", 2, "lower", identical=0.0),
    "clip_score": Column("CLIP score", "eval.text.clip_score", 2),
    "image_reward": Column("ImageReward", "eval.preference.image_reward", 3),
    "hpsv2": Column("HPSv2", "eval.preference.hpsv2", 4),
    "vbench_quality": Column("VBench quality", "eval.quality.vbench_quality", 2),
}
