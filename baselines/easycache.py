"""EasyCache: the change of the latents, times how strongly the output followed it between the last two run steps."""

from torch import Tensor

from spectrum.method import Seen


def change(seen: Seen) -> float:
    """`kappa |x_s - x_{s-1}| / |v_n|` with `kappa = |v_n - v_m| / |x_n - x_m|` at the two newest run steps `m, n`.

    Every `|.|` is a mean of absolute values. Infinite, so that the step runs, until two steps have run.
    """
    if len(seen.runs) < 2:
        return float("inf")
    (x_old, v_old), (x_new, v_new) = seen.runs
    kappa = _size(v_new - v_old) / _size(x_new - x_old)
    return (kappa * _size(seen.signal - seen.previous) / _size(v_new)).item()


def _size(value: Tensor) -> Tensor:
    return value.float().abs().mean()
