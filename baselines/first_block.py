"""First-Block-Cache and DBCache: decide by how far the front blocks' residual has moved since the last run."""

from baselines.teacache import relative_l1
from spectrum.core.method import DriftContext


def change(context: DriftContext) -> float:
    """`mean|r_s - r_n| / mean|r_n|` with `r_s` the front blocks' residual now and `r_n` that at the last run.

    It is compared with the threshold as it stands: not accumulated over steps.

    Args:
        context: what is known at this step; its signal is the residual of the front blocks.
    """
    return relative_l1(context.signal, context.at_runs[-1][0])
