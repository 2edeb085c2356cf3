"""First-Block-Cache and DBCache's rule: how far the front blocks' residual has left that of the last run."""

from baselines.teacache import relative_l1
from spectrum.method import Seen


def change(seen: Seen) -> float:
    """`mean|r_s - r_n| / mean|r_n|`, `r_n` the residual at the newest run step. Not accumulated."""
    return relative_l1(seen.signal, seen.runs[-1][0])
