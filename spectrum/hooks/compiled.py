"""Denoisers that `torch.compile` or `module.compile()` compiled as a whole."""

from collections.abc import Callable
from typing import Any

from torch import nn

from spectrum.core.errors import refuse
from spectrum.hooks.private_api import COMPILED_CALL, compiled_call, uncompiled

__all__ = ["CompiledCall", "compiled_whole", "refuse_compiled_later", "uncompiled", "uses_cuda_graphs"]


def compiled_whole(module: nn.Module) -> bool:
    """Whether a denoiser was compiled as a whole, by `torch.compile(module)` or `module.compile()`."""
    return uncompiled(module) is not module or compiled_call(module) is not None


def uses_cuda_graphs(module: nn.Module) -> bool:
    """Whether a denoiser or a module in it, or a `forward`, was compiled to CUDA graphs (`mode="reduce-overhead"`).

    What such a module returns lies in memory that its next call writes to. The denoiser's own `forward` is looked at as
    well as it can be: what a hook has put around it hides it.
    """
    root = uncompiled(module)
    calls = [module] if root is not module else []
    for part in root.modules():
        calls += [compiled_call(part), vars(part).get("forward")]
    configs = [getattr(call, "get_compiler_config", lambda: None)() for call in calls]
    return any(config.get("triton.cudagraphs", False) for config in configs if config)


def refuse_compiled_later() -> None:
    """Refuse a denoiser that was compiled after a method was put on it."""
    refuse(
        "the denoiser was compiled whole after a method was put on it: restore(pipe), compile, and put it on again; or "
        "compile its blocks alone, pipe.transformer.compile_repeated_blocks()"
    )


class CompiledCall:
    """Puts a function in the place of a fully compiled denoiser's compiled call, so that the hook is not traced.

    Args:
        module: the denoiser, as `torch.compile` returned it or as `module.compile()` left it.
        around: called instead, with the compiled call, the arguments and the keyword arguments.

    Attributes:
        inside: whether the compiled call is running, in which case the root hook lets the forward through.
    """

    def __init__(self, module: nn.Module, around: Callable[[Callable[..., Any], Any, Any], Any]) -> None:
        root = uncompiled(module)
        self._owner, self._name = (module, "forward") if root is not module else (root, COMPILED_CALL)
        self._compiled = getattr(self._owner, self._name)
        self.inside = False
        setattr(self._owner, self._name, lambda *args, **kwargs: around(self._run, args, kwargs))

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        self.inside = True
        try:
            return self._compiled(*args, **kwargs)
        finally:
            self.inside = False

    def remove(self) -> None:
        """Put the compiled call back."""
        setattr(self._owner, self._name, self._compiled)
