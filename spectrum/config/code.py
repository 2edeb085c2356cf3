"""The digest of a function's code, so that an edited method is told from the one that made a stored result.

It covers the function and every function and class that it uses within its own packages. What cannot change a result is
left out: comments, docstrings, annotations, and the checks of `spectrum.core.errors`.
"""

import ast
import functools
import hashlib
import inspect
import textwrap
import types
from collections.abc import Callable, Iterable
from typing import Any

from spectrum.core.method import Method

_LEFT_OUT = ("spectrum.core.errors",)
_CHECKS = ("refuse", "check_number")


def code_digest(functions: Iterable[Callable[..., Any] | None]) -> str:
    """A short SHA-256 over the code of functions and of what they use in the project.

    Args:
        functions: functions or partials of them; None is left out.

    Example:
        >>> from spectrum.core.forecast import newton, reuse
        >>> code_digest([newton]) == code_digest([newton]) != code_digest([reuse])
        True
    """
    found: dict[str, str] = {}
    for function in functions:
        if function is not None:
            _collect(_plain(function), found)
    text = "\n".join(f"{name}\n{found[name]}" for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def method_code(method: Method) -> str:
    """`code_digest` of a method's forecast, schedule, drift and correction."""
    return code_digest([method.forecast, method.schedule, method.drift, method.correct])


def _plain(function: Any) -> Any:
    inner = inspect.unwrap(function)
    return _plain(inner.func) if isinstance(inner, functools.partial) else inner


def _collect(thing: Any, found: dict[str, str]) -> None:
    """Add the source of a function or class, and of what it uses, to `found` by qualified name."""
    module = str(getattr(thing, "__module__", ""))
    name = f"{module.removeprefix('spectrum.')}.{getattr(thing, '__qualname__', repr(thing))}"
    if name in found or module in _LEFT_OUT:
        return
    found[name] = _source(thing)
    roots = _roots(module)
    functions = [thing] if inspect.isfunction(thing) else [f for f in vars(thing).values() if inspect.isfunction(f)]
    for function in functions:
        for used, value in _values_used(function).items():
            if inspect.isfunction(value) or inspect.isclass(value):
                if str(value.__module__).partition(".")[0] in roots:
                    _collect(value, found)
            elif isinstance(value, (int, float, str, tuple, list, dict)):
                found[f"{name} uses {used}"] = repr(value)


def _values_used(function: types.FunctionType) -> dict[str, Any]:
    """What a function finds in its module by name, and in the modules of its own package that it names."""
    names = _names_used(function.__code__)
    found = {name: function.__globals__[name] for name in names if name in function.__globals__}
    roots = _roots(function.__module__)
    modules = [v for v in found.values() if inspect.ismodule(v) and v.__name__.partition(".")[0] in roots]
    return found | {f"{m.__name__}.{name}": vars(m)[name] for m in modules for name in names if name in vars(m)}


def _roots(module: str) -> set[str]:
    """The packages whose code counts: the project's rooms, and the function's own."""
    return {"spectrum", "baselines", module.partition(".")[0]}


def _names_used(code: types.CodeType) -> set[str]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*map(_names_used, inner))


def _source(thing: Any) -> str:
    """The syntax tree of a function or class without what cannot change a result; bytecode if there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        return repr(getattr(thing, "__code__", thing))
    return ast.dump(_Essential().visit(tree))


class _Essential(ast.NodeTransformer):
    """Takes docstrings, annotations and checks of the input out of a syntax tree."""

    def _without_docstring(self, node: Any) -> Any:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        node.returns = None
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> Any:
        node.annotation = None
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id in _CHECKS:
            return ast.Constant(None)
        return self.generic_visit(node)
