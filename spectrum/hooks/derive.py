"""The layout of a denoiser from one traced forward: which block lists it runs, and what comes behind them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from spectrum.core.errors import refuse
from spectrum.hooks.dataflow import Dataflow, ModuleCall, traced
from spectrum.hooks.layout import Denoiser, Exit, Place, Source
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import latents_name

MOST_EXITS = 8
_PLAIN = (Tensor, list, tuple, dict, str, int, float, type(None))
"""What a copy of a call has anew, so that tracing it changes nothing of the caller's."""
SMALL = 0.005
"""A module between the stacks with a smaller share of the denoiser's parameters is left to run."""


@dataclass(frozen=True)
class Cut:
    """What a choice of stacks comes to.

    Attributes:
        stacks: names of lists of blocks and of single blocks.
        exits: the places at which modules behind the blocks are given what comes from the blocks: number of the call,
            argument.
        passed: whether the output depends on the blocks in a way that leads through no exit.
    """

    stacks: tuple[str, ...]
    exits: tuple[tuple[int, Place], ...]
    passed: bool


def layout_of_call(model: nn.Module, call: DenoiserCall) -> Denoiser:
    """`derived_layout` from one call, which is made once more for it, uncompiled.

    Args:
        model: the denoiser, uncompiled.
        call: a call of it.

    Raises:
        SpectrumError: if no layout is found, or the call holds an object that the trace would change.
    """
    names = [name for name in call.inputs if name != "self"]
    for name in names:
        if "cache" in name and not isinstance(call.inputs[name], _PLAIN):
            refuse(
                f"{type(model).__name__} is given {name}, an object that its blocks may write to, which a trace would "
                "change: give the layout, accelerate(pipe, method, denoiser=Denoiser(exit='norm_out'))"
            )
    latents = latents_name(call.inputs)
    number = names.index(latents)
    again = call.copied()
    flow = traced(model, call.plain_forward, again.args, again.kwargs)
    return derived_layout(model, flow, number if number < len(call.args) else latents)


def derived_layout(model: nn.Module, flow: Dataflow, latents: str | int) -> Denoiser:
    """The layout of a denoiser that nobody registered.

    The stacks are the lists whose modules the forward calls on the way from the latents, with what it calls between
    them. The exits are the modules that the last of them feeds.

    Args:
        model: the denoiser.
        flow: its traced forward.
        latents: the forward's argument that the latents are: its name, or its number where it was given by position.

    Raises:
        SpectrumError: if it calls no list of blocks, or something leads past every module from the blocks to the
            output.
    """
    search = _Search(model, flow, latents)
    lists = search.lists()
    name = type(model).__name__
    if not lists:
        refuse(f"{name} calls no list of blocks on the way from its latents: type method.site=output")
    for count in range(len(lists), 0, -1):
        found = search.cut(lists[:count])
        if not found.passed and 0 < len(found.exits) <= MOST_EXITS:
            return search.layout(search.widened(found))
    return refuse(
        f"{name}: what its blocks give reaches the output without entering one module, so no exit can be found: type "
        "method.site=output, or give the layout, accelerate(pipe, method, denoiser=Denoiser(exit='norm_out'))"
    )


class _Search:
    """Tries choices of stacks on one traced forward."""

    def __init__(self, model: nn.Module, flow: Dataflow, latents: str | int) -> None:
        self._calls, self._operations = flow.calls, flow.operations
        self._output = set(flow.calls[0].results.values())
        self._modules = dict(model.named_modules())
        self._lists = {name for name, part in self._modules.items() if isinstance(part, (nn.ModuleList, nn.ModuleDict))}
        own = flow.calls[0].arguments
        self._from_latents = self._reached({own[path] for path in own if path[0] == latents})
        self._makers = [0] * len(flow.operations)
        for number, call in enumerate(flow.calls):  # inner calls come later
            self._makers[call.first : call.end] = [number] * (call.end - call.first)

    def _reached(self, values: set[int]) -> set[int]:
        """All values that depend on some."""
        found = set(values)
        for operation in self._operations:
            if not found.isdisjoint(operation.reads):
                found.update(operation.makes)
        return found

    def _list_of(self, call: ModuleCall) -> str | None:
        """The list that a called module is an item of."""
        owner = call.name.rpartition(".")[0]
        return owner if owner in self._lists else None

    def _above(self, number: int) -> Iterator[int]:
        """The calls that led to one, innermost first, without the denoiser's own."""
        number = self._calls[number].parent
        while number > 0:
            yield number
            number = self._calls[number].parent

    def _size(self, name: str) -> int:
        return sum(parameter.numel() for parameter in self._modules[name].parameters())

    def _sees_latents(self, call: ModuleCall) -> bool:
        return not self._from_latents.isdisjoint(call.arguments.values())

    def lists(self) -> list[str]:
        """The lists of blocks on the way from the latents, in the order they run; not the lists inside of blocks.

        A list of which one item is called, as Z-Image's embedders for several patch sizes, is none if there are others.
        """
        called: dict[str, list[int]] = {}
        for number, call in enumerate(self._calls):
            owner = self._list_of(call)
            inner = any(self._list_of(self._calls[above]) for above in self._above(number))
            if owner is not None and not inner and self._sees_latents(call):
                called.setdefault(owner, []).append(number)
        several = [name for name, items in called.items() if len({self._calls[n].name for n in items}) > 1]
        return self._apart(called, several) or sorted(called, key=self._size)[-1:]

    def _apart(self, called: dict[str, list[int]], names: list[str]) -> list[str]:
        """Without the lists of a module that is called between blocks, as those of a UNet's middle."""
        frames = {name: self._calls[called[name][0]].parent for name in names}
        inner = set[str]()
        for name in names:
            around = [n for other in names if frames[other] == self._calls[frames[name]].parent for n in called[other]]
            if around and min(around) < called[name][0] < max(around):
                inner.add(name)
        return [name for name in names if name not in inner]

    def _blocks(self, stacks: Collection[str]) -> list[int]:
        return [n for n, call in enumerate(self._calls) if call.name in stacks or self._list_of(call) in stacks]

    def _regions(self, stacks: Sequence[str]) -> tuple[set[int], set[int], list[int]]:
        """(calls of blocks, calls that led to one, for each call the outermost one around it that led to none)."""
        blocks = set(self._blocks(stacks))
        opened = {0, *(above for number in blocks for above in self._above(number))} - blocks
        regions: list[int] = []
        for number, call in enumerate(self._calls):
            own = number in blocks or number in opened or call.parent in opened
            regions.append(number if own else regions[call.parent])
        return blocks, opened, regions

    def cut(self, stacks: Sequence[str]) -> Cut:
        """Follow what the blocks give to the output: it may get there only through arguments of modules behind them."""
        blocks, opened, regions = self._regions(stacks)
        last = max(blocks)
        raw: set[int] = set()
        exits: dict[tuple[int, Place], None] = {}
        for operation, maker in zip(self._operations, self._makers, strict=True):
            region, call = regions[maker], self._calls[regions[maker]]
            passing = raw.intersection(operation.reads)
            if region > last and region not in opened:
                entered = {path: value for path, value in call.arguments.items() if value in passing}
                exits.update(dict.fromkeys((region, path) for path in entered))
                passing -= set(entered.values())
            if region in blocks or passing:
                raw.update(operation.makes)
            else:
                raw.difference_update(operation.makes)
        return Cut(tuple(stacks), tuple(sorted(exits, key=lambda place: place[0])), not raw.isdisjoint(self._output))

    def widened(self, found: Cut) -> Cut:
        """Take in what else need not run: modules between the stacks, and lists of like modules that only feed them."""
        blocks, opened, regions = self._regions(found.stacks)
        whole = self._size("")
        more: dict[str, None] = {}
        for number in range(max(blocks)):
            call, owner = self._calls[number], self._list_of(self._calls[number])
            between = number > min(blocks) and regions[number] == number and number not in opened
            inside = number in blocks or regions[number] in blocks
            if not inside and (owner is not None or between):
                more[owner or call.name] = None
        for name in more:
            items = [*self._modules[name].children()] if name in self._lists else []
            if items and len({type(item) for item in items}) == len(items):
                continue
            if self._size(name) > SMALL * whole and not any(name.startswith(f"{other}.") for other in found.stacks):
                wider = self.cut((*found.stacks, name))
                found = wider if wider.exits == found.exits and not wider.passed else found
        return found

    def layout(self, found: Cut) -> Denoiser:
        """The layout that a choice of stacks comes to; those that do not see the latents are feeders."""
        exits: list[Exit] = []
        seen: dict[object, int] = {}
        for number, path in found.exits:
            call = self._calls[number]
            same = seen.setdefault((call.arguments[path], call.views[path]), len(exits))
            exits.append(Exit(call.name, path, call.occurrence, None if same == len(exits) else same))
        first = {name: self._blocks([name])[0] for name in found.stacks}
        ordered = sorted(found.stacks, key=lambda name: first[name])
        stacks = [name for name in ordered if self._sees_latents(self._calls[first[name]])]
        feeders = tuple(name for name in ordered if name not in stacks)
        number, path = found.exits[0]
        entry = self._entry(self._calls[first[stacks[0]]], self._calls[number].views[path][0])
        return Denoiser(exit=tuple(exits), stacks=tuple(stacks), entry=entry, feeders=feeders, source=Source.traced)

    def _entry(self, block: ModuleCall, shape: tuple[int, ...]) -> Place | None:
        """The argument of the first block that comes from the latents and has the shape of the feature."""
        places = [path for path, value in block.arguments.items() if value in self._from_latents]
        alike = [path for path in places if block.views[path][0] == shape]
        return next(iter(alike or places), None)
