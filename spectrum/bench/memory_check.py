"""Does a run fit into the memory of its device? If not, which setting is the nearest that does. Nothing is loaded."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spectrum.config.schema import OFFLOADS, RunConfig
from spectrum.core.errors import refuse
from spectrum.core.method import Method, Site
from spectrum.models.need import GIB, Need, gib

Change = Callable[[RunConfig], Iterator[tuple[str, RunConfig]]]
"""Gives variants of a config, from the least to the most change, each with the words to type for it."""
TRY = "check_memory=false"
LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much memory a container may take; `max` is no limit."""
OUTPUT = " (at method.site=output another method: what the denoiser returns is stored and forecast)"


@dataclass(frozen=True)
class Nearest:
    """The setting to type where a run does not fit.

    Attributes:
        words: what to type; empty where nothing was found that takes less.
        peak: bytes that it then takes at most.
        fits: whether that is little enough.
    """

    words: tuple[str, ...]
    peak: int
    fits: bool


def nearest(config: RunConfig, peak: Callable[[RunConfig], int], limit: int, changes: Mapping[str, Change]) -> Nearest:
    """The setting nearest to a config's with which it fits.

    Single changes are tried in their order; then all of them one on top of the other, less what turns out not to be
    needed.

    Args:
        config: the config, which does not fit.
        peak: the most bytes that a config takes.
        limit: the bytes that there are.
        changes: from the least to the most costly, by the setting that each changes.
    """
    for change in changes.values():
        for word, variant in change(config):
            if (size := peak(variant)) <= limit:
                return Nearest((word,), size, True)
    chosen: dict[str, int] = {}
    lowest = peak(config)
    for name in changes:
        variants = list(changes[name](_with(config, changes, chosen)))
        sizes = [peak(variant) for _, variant in variants]
        if sizes and min(sizes) < lowest:
            lowest = min(sizes)
            chosen[name] = next((n for n, size in enumerate(sizes) if size <= limit), sizes.index(lowest))
            lowest = sizes[chosen[name]]
        if lowest <= limit:
            break
    least = max(limit, lowest)
    for name, number in list(chosen.items()):
        fewer = {other: own for other, own in chosen.items() if other != name}
        tries = [fewer, *({**chosen, name: smaller} for smaller in range(number))]
        chosen = next((tried for tried in tries if peak(_with(config, changes, tried)) <= least), chosen)
    words = tuple(_words(config, changes, chosen))
    lowest = peak(_with(config, changes, chosen))
    return Nearest(words, lowest, lowest <= limit)


def _with(config: RunConfig, changes: Mapping[str, Change], chosen: Mapping[str, int]) -> RunConfig:
    for name, number in chosen.items():
        config = list(changes[name](config))[number][1]
    return config


def _words(config: RunConfig, changes: Mapping[str, Change], chosen: Mapping[str, int]) -> Iterator[str]:
    for name, number in chosen.items():
        word, config = list(changes[name](config))[number]
        yield word


def changes_of(method: Method, cpu: bool) -> dict[str, Change]:
    """What may be changed so that a run takes less, from the least to the most costly.

    Args:
        method: the method of the run.
        cpu: whether it is on a CPU, where there is nothing to offload from.
    """
    found: dict[str, Change] = {"model.vae": _pieces, "batch": _batches}
    plain = method.time_only and not method.front_blocks and method.fitted_steps is None
    if method.forecast is not None and method.site is Site.exit and plain:
        found["method.site"] = _output
    if not cpu:
        found["offload"] = _offloads
    return found | {"model.dtype": _shorter}


def _pieces(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    several = ["slicing"] if (config.batch or 1) > 1 else []
    for more in (several, ["tiling"], [*several, "tiling"]):
        pieces = [*config.model.vae, *(piece for piece in more if piece not in config.model.vae)]
        if pieces != config.model.vae:
            yield f"'model.vae=[{','.join(pieces)}]'", _of_model(config, vae=pieces)


def _batches(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    size = config.batch or 1
    while size > 1:
        size //= 2
        yield f"batch={size}", dataclasses.replace(config, batch=size)


def _output(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    yield "method.site=output", dataclasses.replace(config, method=dataclasses.replace(config.method, site=Site.output))


def _offloads(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    for offload in OFFLOADS[OFFLOADS.index(config.offload) + 1 :]:
        yield f"offload={offload}", dataclasses.replace(config, offload=offload)


def _shorter(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    if config.model.dtype == "float32":
        yield "model.dtype=bfloat16", _of_model(config, dtype="bfloat16")


def _of_model(config: RunConfig, **settings: Any) -> RunConfig:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **settings))


def check_fit(
    config: RunConfig, method: Method, need: Callable[[RunConfig], Need], limit: int, ahead: bool, cpu: bool
) -> Need:
    """Refuse a run that would not fit, with the nearest setting that does.

    Args:
        config: the config, with what was fitted filled in.
        method: its method.
        need: works out what a config needs.
        limit: the bytes that there are.
        ahead: whether `offload=group` brings the next group while one is at work.
        cpu: whether the run is on a CPU.

    Returns:
        What the config needs, where it fits.

    Raises:
        SpectrumError: with what to type.
    """
    whole = need(config)
    if whole.peak(config.offload, ahead) <= limit:
        return whole

    def peak(variant: RunConfig) -> int:
        try:
            return need(variant).peak(variant.offload, ahead)
        except Exception:  # a VAE that cannot decode in pieces, or whatever else fails with another setting
            return whole.peak(config.offload, ahead)

    found = nearest(config, peak, limit, changes_of(method, cpu))
    typed = config.memory_limit_gb
    of_user = typed is not None and int(typed * GIB) == limit
    there = f"memory_limit_gb={typed:g} allows {gib(limit)} GiB" if of_user else f"{gib(limit)} GiB are free"
    lacks = f"model={config.model.name} needs {whole.text(config.offload, ahead)}, and {there}"
    words, size = " ".join(found.words), f"{gib(found.peak)} GiB"
    stored = OUTPUT if "method.site=output" in words else ""
    if found.fits:
        return refuse(f"{lacks}: type {words}, which needs {size}{stored}; or {TRY} to try it all the same")
    least = f"the least, with {words}, is {size}{stored}" if words else "no setting here makes it less"
    return refuse(f"{lacks}; {least}: take a smaller height, width or model, or type {TRY} to try it all the same")


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device: free, or held by torch and not in use; None where nobody says.

    Of a CPU it is all that the machine has, or that its container may take.
    """
    if device.type == "cpu":
        allowed = []
        for path in LIMITS:
            with suppress(OSError, ValueError):
                allowed.append(int(path.read_text()))
        if hasattr(os, "sysconf"):
            allowed.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        return min(allowed, default=None)
    if device.type != "cuda":
        return None
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held
