"""Which modules a denoiser's forward calls, and which values each operation reads and makes: one traced forward."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from spectrum.hooks.layout import Place
from spectrum.hooks.private_api import DispatchMode, storage_id, uncompiled_attention, written_arguments
from spectrum.hooks.tensors import tensors_in

View = tuple[tuple[int, ...], tuple[int, ...], int]
"""(shape, strides, offset) of a tensor in its storage."""


@dataclass
class ModuleCall:
    """One call of a module within a forward.

    Attributes:
        name: the module's name in the denoiser; empty for the denoiser itself.
        parent: number of the call that made this one; -1 for the denoiser's own.
        occurrence: how many times the module had been called in this forward before.
        first: number of the first operation in it.
        end: number of the first operation behind it.
        arguments: by place the number of the value that it was given.
        views: by place which part of its storage the tensor is: shape, strides, offset.
        results: by place the number of the value that it returned.
    """

    name: str
    parent: int
    occurrence: int
    first: int
    end: int = -1
    arguments: dict[Place, int] = field(default_factory=dict)
    views: dict[Place, View] = field(default_factory=dict)
    results: dict[Place, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """One operation: the values that it reads and those that it makes."""

    reads: tuple[int, ...]
    makes: tuple[int, ...]


@dataclass
class Dataflow:
    """One traced forward.

    A value is what a storage holds between two operations that write to it. Views share their base's value, so writing
    into a slice of a tensor changes the value of the whole tensor.

    Attributes:
        calls: of modules, in the order they began; the first is the denoiser's own.
        operations: in the order they ran; views are left out.
        output: what the forward returned.
    """

    calls: list[ModuleCall] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    output: Any = None


class _Recorder(DispatchMode):
    """Writes down each operation's values while it is in force."""

    def __init__(self, flow: Dataflow) -> None:
        super().__init__()
        self._flow = flow
        self._values: dict[int, int] = {}
        self._count = 0
        self._held: list[StorageWeakRef] = []

    def value_of(self, tensor: Tensor) -> int:
        """The number of the value that a tensor holds now."""
        storage = tensor.untyped_storage()
        if storage_id(storage) not in self._values:
            self._new_value(storage)
        return self._values[storage_id(storage)]

    def note_arguments(self, call: ModuleCall, args: Any, kwargs: Any) -> None:
        """Write down what a call was given."""
        for path, tensor in tensors_in({**dict(enumerate(args)), **kwargs}):
            call.arguments[path] = self.value_of(tensor)
            call.views[path] = tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())

    def note_results(self, call: ModuleCall, result: Any) -> None:
        """Write down what a call returned."""
        call.results = {path: self.value_of(tensor) for path, tensor in tensors_in([result])}

    def _new_value(self, storage: Any) -> int:
        self._held.append(StorageWeakRef(storage))  # its address is given to no other storage
        self._values[storage_id(storage)] = self._count
        self._count += 1
        return self._count - 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [tensor for _, tensor in tensors_in([args, kwargs])]
        reads = tuple(self.value_of(tensor) for tensor in given)
        result = func(*args, **kwargs)
        before = {storage_id(tensor.untyped_storage()) for tensor in given}
        changed = _written(func, args, kwargs)
        made = [tensor for _, tensor in tensors_in(result) if storage_id(tensor.untyped_storage()) not in before]
        storages = {storage_id(tensor.untyped_storage()): tensor.untyped_storage() for tensor in (*changed, *made)}
        if storages:
            makes = tuple(self._new_value(storage) for storage in storages.values())
            self._flow.operations.append(Operation(reads, makes))
        return result


def _written(operation: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes to."""
    places = written_arguments(operation)
    values = [args[number] if number < len(args) else kwargs.get(name) for number, name in places]
    return [tensor for _, tensor in tensors_in(values)]


@contextmanager
def _following(model: nn.Module, recorder: _Recorder, flow: Dataflow) -> Iterator[None]:
    """Write down each call of a module of `model`."""
    running: list[int] = []
    counts: dict[str, int] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            call = ModuleCall(name, running[-1], counts.get(name, 0), len(flow.operations))
            recorder.note_arguments(call, args, kwargs)
            counts[name] = call.occurrence + 1
            running.append(len(flow.calls))
            flow.calls.append(call)

        return hook

    def after(module: nn.Module, args: Any, result: Any) -> None:
        call = flow.calls[running.pop()]
        call.end = len(flow.operations)
        recorder.note_results(call, result)

    flow.calls.append(ModuleCall("", -1, 0, 0))
    running.append(0)
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if module is not model:
                hooks.callback(module.register_forward_pre_hook(before(name), with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(after).remove)
        yield
    flow.calls[0].end = len(flow.operations)


def traced(model: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Dataflow:
    """Call a denoiser's forward once, and write down which modules it calls and which values its operations read.

    Args:
        model: the denoiser, uncompiled.
        forward: its forward.
        args: positional arguments.
        kwargs: keyword arguments.
    """
    flow = Dataflow()
    recorder = _Recorder(flow)
    with _following(model, recorder, flow), uncompiled_attention(), recorder:
        recorder.note_arguments(flow.calls[0], args, kwargs)
        flow.output = forward(*args, **kwargs)
        recorder.note_results(flow.calls[0], flow.output)
    return flow
