"""The proof of a layout: with the stored features put back the output is the same, and no block runs."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spectrum.core.errors import refuse
from spectrum.hooks.block_stand_ins import blocks_named
from spectrum.hooks.exit_site import ExitSite, FrontExitSite, kind_of_call
from spectrum.hooks.idle import idle_stand_ins
from spectrum.hooks.layout import Denoiser, Source
from spectrum.hooks.module_site import ModuleSite
from spectrum.hooks.private_api import submodules
from spectrum.hooks.site import CacheSite, SiteResult
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import tensors_in

FORGOTTEN = 0.02
"""A list with this share of the parameters that still runs at a skipped step was forgotten in a layout."""


def difference(computed: Any, replayed: Any) -> str | None:
    """What is not the same in two outputs of a denoiser, bit for bit; None if all is.

    Example:
        >>> difference((torch.zeros(2), torch.ones(1)), (torch.zeros(2), torch.zeros(1)))
        'output 1, of shape (1,): off by 1'
    """
    pairs = list(tensors_in([computed])), list(tensors_in([replayed]))
    if [path for path, _ in pairs[0]] != [path for path, _ in pairs[1]]:
        return f"{len(pairs[0])} tensors, and then {len(pairs[1])}"
    for number, ((_, one), (_, other)) in enumerate(zip(*pairs, strict=True)):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"output {number}: {tuple(one.shape)} {one.dtype}, and then {tuple(other.shape)} {other.dtype}"
        if not _same(one, other):
            off = (one.float() - other.float()).abs().max().item()
            return f"output {number}, of shape {tuple(one.shape)}: off by {off:.3g}"
    return None


def _same(one: Tensor, other: Tensor) -> bool:
    if one.is_floating_point():
        return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    return torch.equal(one, other)


@contextmanager
def calls_of(
    modules: Mapping[str, nn.Module], counts: Callable[[nn.Module, Any, Any], bool] = lambda module, args, kwargs: True
) -> Iterator[list[str]]:
    """The names of the modules that are called, in that order, until the context ends.

    Args:
        modules: the modules by name.
        counts: given a module and the arguments of a call of it, whether that call counts.
    """
    called: list[str] = []

    def note(module: nn.Module, args: Any, kwargs: Any, name: str) -> None:
        if counts(module, args, kwargs):
            called.append(name)

    with ExitStack() as hooks:
        for name, module in modules.items():
            hook = module.register_forward_pre_hook(functools.partial(note, name=name), with_kwargs=True)
            hooks.callback(hook.remove)
        yield called


def forgotten(model: nn.Module, stacks: Sequence[str]) -> dict[str, nn.Module]:
    """The items of large lists of several modules that a layout does not name, outside of its stacks."""
    whole = sum(parameter.numel() for parameter in model.parameters())
    found: dict[str, nn.Module] = {}
    for name, part in model.named_modules():
        owner = f"{name}."
        inside = any(owner.startswith(f"{other}.") for other in (*stacks, *found))
        if inside or not isinstance(part, (nn.ModuleList, nn.ModuleDict)) or len(submodules(part)) < 2:
            continue
        if sum(parameter.numel() for parameter in part.parameters()) > FORGOTTEN * whole:
            found |= {f"{name}.{key}": item for key, item in submodules(part).items() if item is not None}
    return found


def proved(
    site: CacheSite, model: nn.Module, layout: Denoiser, call: DenoiserCall, result: SiteResult, whole: bool
) -> SiteResult:
    """Prove that a site can put features back; at the output site there is nothing to prove.

    Args:
        site: the site, which has just run the blocks.
        model: the denoiser.
        layout: its layout.
        call: the call that it ran.
        result: what came of it.
        whole: whether the denoiser is compiled as a whole. It rounds otherwise with its blocks than without them, so
            the layout is proved uncompiled then.

    Returns:
        The result, with what is stored in another dtype where that was needed.

    Raises:
        SpectrumError: if the output is not the same with the features put back.
    """
    if isinstance(site, ModuleSite):
        prove_modules(site, model, call, result)
    if not isinstance(site, ExitSite):
        return result
    if not whole:
        result = prove(site, model, layout, call, result)
        if not isinstance(site, FrontExitSite):
            replay = functools.partial(_replays, site, call, result)
            known = next(reversed(site.idle.values()), {})
            site.idle[kind_of_call(call)] = idle_stand_ins(model, layout, replay, [*known])
        return result
    plain, before = dataclasses.replace(call, forward=call.plain_forward), (site.narrow, site.by_block)
    prove(site, model, layout, plain, site.run_blocks(plain.copied()))
    return result if (site.narrow, site.by_block) == before else site.run_blocks(call.copied())


def prove(site: ExitSite, model: nn.Module, layout: Denoiser, call: DenoiserCall, result: SiteResult) -> SiteResult:
    """Prove a layout: with what was stored put back and stand-ins for its blocks, all of the output is as it was.

    Lists are stood in for whole, and if that fails block by block.

    Args:
        site: the site, which has just run the blocks. It is left in the way that was proved.
        model: the denoiser.
        layout: its layout.
        call: the call that it ran.
        result: what came of it.

    Returns:
        The result, with what is stored in another dtype where that was needed.

    Raises:
        SpectrumError: if neither way gives the same output, with what differed.
    """
    said: list[str] = []
    for by_block in site.ways:
        if by_block and not site.by_block:
            site.stand_in_by_block()
            result = site.run_blocks(call.copied())
        found = fault(site, model, layout, call, result)
        if found is not None and site.narrowed:
            site.narrow = False
            result = site.run_blocks(call.copied())
            found = fault(site, model, layout, call, result)
        if found is None:
            return result
        said.append(found)
    stacks, exits = ", ".join(layout.stacks), ", ".join(map(str, layout.exits))
    return refuse(
        f"{type(model).__name__}: the layout (stacks {stacks}; exit {exits}) is not right: with the stored feature put "
        f"back, {said[0]}. Type method.site=output, which needs no layout, or give another, accelerate(pipe, method, "
        "denoiser=Denoiser(exit=..., stacks=...))"
    )


def fault(site: ExitSite, model: nn.Module, layout: Denoiser, call: DenoiserCall, result: SiteResult) -> str | None:
    """What is wrong when the stored features are put back; None if nothing is.

    Args:
        site: the site.
        model: the denoiser.
        layout: its layout.
        call: a call; each try gets a copy of its lists.
        result: what came of it when the blocks ran.
    """
    watched = blocks_named(model, (*layout.stacks, *layout.feeders))
    if layout.source is Source.given:
        watched |= forgotten(model, layout.stacks)
    try:
        with calls_of(watched) as called:
            features = {slot: result.features[slot] for slot in site.slots}
            replayed = site.skip_blocks(call.copied(), features, whole=True)
    except Exception as error:  # what a forward does with a stand-in is not known
        return f"its forward fails: {type(error).__name__}: {error}"
    if called:
        return f"{called[0]} still runs"
    if site.residual and not isinstance(site, FrontExitSite) and not _same_values(replayed.entry, result.entry):
        return "what arrives at the exit without blocks is not what enters them, so there is no residual"
    return difference(result.output, replayed.output)


def _replays(site: ExitSite, call: DenoiserCall, result: SiteResult) -> bool:
    """Whether all is as it was with the stored features put back; what it differs by is not worked out."""
    replayed = site.skip_blocks(call.copied(), {slot: result.features[slot] for slot in site.slots}, whole=True)
    if site.residual and not _same_values(replayed.entry, result.entry):
        return False
    pairs = zip(tensors_in([result.output]), tensors_in([replayed.output]), strict=True)
    return all(a.shape == b.shape and a.dtype == b.dtype and _same(a, b) for (_, a), (_, b) in pairs)


def _same_values(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape and bool((one == other).all())


def prove_modules(site: ModuleSite, model: nn.Module, call: DenoiserCall, result: SiteResult) -> None:
    """Prove that the attentions and MLPs of a denoiser can be replaced: with what they gave put back, all is as it was.

    Args:
        site: the site, which has just run them.
        model: the denoiser.
        call: the call that it ran.
        result: what came of it.

    Raises:
        SpectrumError: if the output is not the same, with what differed.
    """
    try:
        found = difference(result.output, site.replay(call.copied(), result.features).output)
    except Exception as error:  # what a block does with a forecast is not known
        found = f"its forward fails: {type(error).__name__}: {error}"
    if found is not None:
        refuse(
            f"the attentions and MLPs of {type(model).__name__} cannot be replaced: with what they gave put back, "
            f"{found}. Type method.site=exit"
        )
