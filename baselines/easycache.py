"""EasyCache: decides by the change of the latents, scaled by how strongly the output followed it at the last runs."""

from torch import Tensor

from spectrum.core.method import DriftContext


def change(context: DriftContext) -> float:
    """`kappa |x_s - x_{s-1}| / |v_n|` with `kappa = |v_n - v_m| / |x_n - x_m|` at the two newest run steps `m, n`.

    `x` are the latents, `v` the denoiser's outputs, and every `|.|` is a mean of absolute values.

    Args:
        context: what is known at this step; its signal is the latents.

    Returns:
        The relative change; infinity until two steps have run, so that the step runs.
    """
    if len(context.at_runs) < 2:
        return float("inf")
    (x_old, v_old), (x_new, v_new) = context.at_runs
    kappa = _mean_size(v_new - v_old) / _mean_size(x_new - x_old)
    return (kappa * _mean_size(context.signal - context.previous) / _mean_size(v_new)).item()


def _mean_size(value: Tensor) -> Tensor:
    return value.float().abs().mean()
