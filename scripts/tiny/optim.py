"""Muon for every weight that is a matrix or a convolution, AdamW for the rest.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest semi-orthogonal one. `torch.optim.Muon` takes
2-D parameters only; here a convolution counts as the matrix (out channels, everything else).
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards U V^T of the singular value decomposition of each (..., rows, columns) matrix."""
    a, b, c = _QUINTIC
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum; the step is scaled to an RMS of 0.2, AdamW's usual one."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient; matrices of one shape are orthogonalised together."""
        for group in self.param_groups:
            updates: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"]).flatten(1)
                updates[update.shape].append((p, update))
            for shape, found in updates.items():
                orthogonal = orthogonalise(torch.stack([update for _, update in found]))
                orthogonal *= -group["lr"] * 0.2 * max(shape) ** 0.5
                for (p, _), change in zip(found, orthogonal, strict=True):
                    p.add_(change.view_as(p))


def optimisers(module: nn.Module, lr: float, exclude: tuple[str, ...] = ()) -> list[torch.optim.Optimizer]:
    """[Muon, AdamW] over `module`: Muon takes every weight of two or more dimensions not named in `exclude`."""
    matrices, rest = [], []
    for name, p in module.named_parameters():
        is_matrix = p.ndim >= 2 and not any(word in name for word in exclude)
        (matrices if is_matrix else rest).append(p)
    return [Muon(matrices, lr=lr), torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]


def set_lr(optims: list[torch.optim.Optimizer], lr: float) -> None:
    """Give every group the learning rate of this step."""
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = lr


def update(
    model: nn.Module,
    average: torch.optim.swa_utils.AveragedModel,
    optims: list[torch.optim.Optimizer],
    loss: Tensor,
    lr: float,
) -> None:
    """One update of a model and of its average, from a loss, with the gradient clipped to a norm of 1."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    set_lr(optims, lr)
    for optim in optims:
        optim.step()
        optim.zero_grad()
    average.update_parameters(model)


def warmup_then_decay(step: int, steps: int, warmup: int = 100, tail: float = 0.3) -> float:
    """Learning-rate factor: linear warm-up, flat, then linear to zero over the last `tail` of the run."""
    return min((step + 1) / warmup, 1.0, (steps - step) / (tail * steps))
