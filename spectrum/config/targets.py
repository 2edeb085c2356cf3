"""Functions that configs name by `_target_`: found, checked, and made with `hydra.utils.instantiate`.

Only functions of `spectrum`, `baselines` and `eval` may be named, and those of the packages in `plugins=[...]`. What a
record or a trace names is never imported unless a shipped config names it too (`shipped_targets`).
"""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import baselines
from spectrum.config.reader import group_files, method_files
from spectrum.core.errors import refuse

ROOMS = ("spectrum", "baselines", "eval")
_PREFIX = baselines.__name__.removesuffix("baselines")
"""Empty in a checkout; `spectrum.` where the project is installed and its rooms lie inside the package."""
_NOT_PARAMETERS = ("_target_", "_partial_", "runs_search")


def locate(target: str, key: str, plugins: Sequence[str] = (), plugins_key: str = "plugins") -> Callable[..., Any]:
    """The function that a config names.

    Args:
        target: dotted path, `baselines.teacache.drift`.
        key: the config key, for messages.
        plugins: packages outside the project that may be named.
        plugins_key: the key by which a package is allowed, for the message.

    Raises:
        SpectrumError: if it lies outside the allowed packages, cannot be imported, or is no function.
    """
    module, _, name = target.rpartition(".")
    root = target.partition(".")[0]
    if root not in (*ROOMS, *plugins):
        refuse(
            f"{key} names {target}, which lies outside of {', '.join(ROOMS)}: allow its package with "
            f"{plugins_key}=[{root}]"
        )
    inside = f"{_PREFIX}{module}" if root in ROOMS[1:] else module
    try:
        found = getattr(importlib.import_module(inside), name)
    except (ImportError, AttributeError, ValueError) as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == root
        hint = ": install it, or put the folder that holds it into PYTHONPATH" if absent else ""
        return refuse(f"{key} names {target}, which cannot be imported ({error}){hint}")
    home = str(getattr(found, "__module__", "")).partition(".")[0]
    if not inspect.isfunction(found) or home not in (*ROOMS, *plugins):
        refuse(f"{key} names {target}, which is no function of {root}: type the dotted path of one")
    return found


def bound_function(
    node: Any,
    key: str,
    missing: str,
    plugins: Sequence[str] = (),
    allowed: Collection[str] | None = None,
) -> Callable[..., Any]:
    """The function that a node names, with the node's other values bound to it.

    Args:
        node: `{_target_: path, _partial_: true, parameter: value, ...}`. A null leaves a parameter its own default.
        key: where the node stands: `method.forecast`, `schedule`.
        missing: what to say if a parameter without a default is null.
        plugins: packages outside the project that may be named.
        allowed: if given, the only targets that may be named.

    Returns:
        A `functools.partial`.

    Raises:
        SpectrumError: for anything else than such a node, a target that is not allowed, and an unknown parameter.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        refuse(f"{key} must name a function by _target_, got {node!r}: leave it to method=NAME or schedule=NAME")
    target = node["_target_"]
    if allowed is not None and target not in allowed:
        refuse(f"{key} names {target}, which no config of the project names: only shipped functions are used here")
    parameters = {k: v for k, v in node.items() if k not in _NOT_PARAMETERS and v is not None}
    if any(True for _ in _targets_in(parameters)):
        refuse(f"{key} has a _target_ inside a parameter: only plain values can be parameters")
    function = locate(target, key, plugins)
    known = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for name in parameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {key}.{near[0]}?" if near else f"it takes {', '.join(known) or 'none'}"
            refuse(f"{key}.{name} is no parameter of {target}: {hint}")
    if any(p.default is p.empty and name not in parameters for name, p in known.items()):
        refuse(missing)
    from hydra.utils import instantiate

    inside = f"{function.__module__}.{function.__qualname__}"
    made = instantiate({"_target_": inside, "_partial_": True, **parameters}, _convert_="all")
    # Hydra's own partial inspects each call again; what may be called was checked above, once.
    return functools.partial(made.func, *made.args, **made.keywords)


def _targets_in(value: Any) -> Iterator[str]:
    """Every `_target_` in nested dicts and lists."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield str(value["_target_"])
        for inner in value.values():
            yield from _targets_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _targets_in(inner)


def own_targets() -> frozenset[str]:
    """Those of `shipped_targets` that are code of the project, not of a package that a config brought with it."""
    return frozenset(target for target in shipped_targets() if target.partition(".")[0] in ROOMS)


@functools.cache
def shipped_targets() -> frozenset[str]:
    """Every function that a shipped config of a method or a schedule names."""
    files = [*(own for own, _ in method_files().values()), *group_files("schedule").values()]
    return frozenset(target for node in files for target in _targets_in(node))
