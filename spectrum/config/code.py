"""The digest of a function's code, so that an edited method is told from the one that made a stored result.

It covers the function and all that it uses within its own packages: functions, also behind decorators and in
containers, classes with their methods, and module-level values. What cannot change a result is left out: comments,
docstrings, annotations, and the checks of `spectrum.core.errors`. Every version of Python gives the same digest.
"""

import ast
import functools
import hashlib
import inspect
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator
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
        while isinstance(function, functools.partial):
            function = function.func
        if function is not None:
            _add_code(function, found, {"spectrum", "baselines", function.__module__.partition(".")[0]})
    text = "\n".join(f"{name}\n{found[name]}" for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def method_code(method: Method) -> str:
    """`code_digest` of a method's forecast, schedule, drift and correction."""
    return code_digest([method.forecast, method.schedule, method.drift, method.correct])


def _add_code(thing: Any, found: dict[str, str], roots: set[str]) -> None:
    """Add the source of a function or class, and of what it uses in the packages `roots`, to `found` by name."""
    module = str(getattr(thing, "__module__", ""))
    name = f"{module.removeprefix('spectrum.')}.{getattr(thing, '__qualname__', type(thing).__name__)}"
    if module in _LEFT_OUT or module.partition(".")[0] not in roots:
        return
    for number, function in enumerate(_layers(thing)):
        key = f"{name} {number}" if number else name
        if key in found:
            continue
        found[key] = _source(function)
        for used, value in _values_used(function, roots).items():
            _add_value(f"{key} uses {used}", value, found, roots)


def _layers(thing: Any) -> Iterator[Any]:
    """A class; or a function and those that its decorators wrapped around it, innermost last."""
    while thing is not None:
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield thing
        thing = None if inspect.isclass(thing) else getattr(thing, "__wrapped__", None)


def _add_value(key: str, value: Any, found: dict[str, str], roots: set[str]) -> None:
    """Add what a name stands for: the code of functions and classes, the content of everything else."""
    if isinstance(value, functools.partial):
        _add_value(key, [value.func, list(value.args), value.keywords], found, roots)
    elif inspect.isclass(value) or inspect.isfunction(value) or hasattr(value, "__wrapped__"):
        _add_code(value, found, roots)
    elif isinstance(value, dict):
        for name in value:
            _add_value(f"{key}[{name!r}]", value[name], found, roots)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _add_value(f"{key}[{number}]", item, found, roots)
    elif isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        found[key] = repr(value)
    elif hasattr(value, "tobytes") and hasattr(value, "dtype"):
        found[key] = f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"


def _values_used(thing: Any, roots: set[str]) -> dict[str, Any]:
    """What a function, or the methods of a class, find in their module by name, and in other modules of `roots`."""
    if inspect.isclass(thing):
        members = [part for member in vars(thing).values() for part in _functions_of(member)]
        return {f"{m.__name__}.{k}": v for m in members for k, v in _values_used(m, roots).items()}
    names = _names_used(thing.__code__)
    found = {name: thing.__globals__[name] for name in names if name in thing.__globals__}
    closed = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
    found |= {name: cell.cell_contents for name, cell in closed if _is_filled(cell)}
    modules = [v for v in found.values() if inspect.ismodule(v) and v.__name__.partition(".")[0] in roots]
    return found | {f"{m.__name__}.{name}": vars(m)[name] for m in modules for name in names if name in vars(m)}


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _functions_of(member: Any) -> list[types.FunctionType]:
    """The functions of a class's member: a method, a static or class method, a property."""
    if isinstance(member, (staticmethod, classmethod)):
        member = member.__func__
    parts = [member.fget, member.fset] if isinstance(member, property) else [member]
    return [inner for part in parts for inner in _layers(part) if inspect.isfunction(inner)]


def _names_used(code: types.CodeType) -> set[str]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*map(_names_used, inner))


def _source(thing: Any) -> str:
    """The syntax tree of a function or class without what cannot change a result; bytecode if there is no source."""
    try:
        text = inspect.getsource(thing.__code__ if inspect.isfunction(thing) else thing)
        return _dump(_Essential().visit(ast.parse(textwrap.dedent(text))))
    except (OSError, TypeError, SyntaxError):
        code = getattr(thing, "__code__", None)
        return thing.__qualname__ if code is None else f"{code.co_code.hex()} {code.co_names}"


def _dump(node: Any) -> str:
    """A syntax tree as text, without empty fields, of which newer versions of Python have more."""
    if isinstance(node, ast.AST):
        kept = [(k, v) for k, v in ast.iter_fields(node) if v not in (None, []) or isinstance(node, ast.Constant)]
        return f"{type(node).__name__}({', '.join(f'{k}={_dump(v)}' for k, v in kept if k != 'kind')})"
    return f"[{', '.join(map(_dump, node))}]" if isinstance(node, list) else repr(node)


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
