"""The digest of a method's code changes with everything that can change a result, and with nothing else."""

import importlib
import linecache
import sys

import pytest

from spectrum.config.code import code_digest

MODULE = '''
import functools
import numpy as np

SCALE = 2.0
TABLE = np.array([1.0, 2.0])

def helper(x):
    return x + 1

@functools.cache
def cached(x):
    return x * 3

def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) - 7
    return wrapper

@logged
def wrapped(x):
    return x * 5

class Rule:
    @staticmethod
    def static(x):
        return helper(x)
    @property
    def size(self):
        return 11

OPERATIONS = {"first": helper, "all": [cached]}
BOUND = functools.partial(helper, 4)

def forecast(times, target, span):
    """Doc."""
    # comment
    return cached(SCALE) + wrapped(1) + Rule.static(2) + TABLE[0] + OPERATIONS["first"](1) + BOUND() + Rule().size
'''


EDITS = [
    ("return x + 1", "return x + 2"),
    ("return x * 3", "return x * 4"),
    ("- 7", "- 8"),
    ("return x * 5", "return x * 6"),
    ("return 11", "return 12"),
    ("return helper(x)", "return helper(x) + 1"),
    ("SCALE = 2.0", "SCALE = 2.5"),
    ("[1.0, 2.0]", "[1.5, 2.0]"),
    ('"all": [cached]', '"all": [cached, 1]'),
    ("partial(helper, 4)", "partial(helper, 5)"),
]


@pytest.fixture
def same_name(tmp_path, monkeypatch):
    """The digest of a text that is always written to the same module."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest(text):
        (tmp_path / "edited.py").write_text(text)
        sys.modules.pop("edited", None)
        sys.path_importer_cache.clear()
        importlib.invalidate_caches()
        linecache.clearcache()
        for cached in tmp_path.rglob("*.pyc"):
            cached.unlink()
        found = code_digest([importlib.import_module("edited").forecast])
        sys.modules.pop("edited", None)
        return found

    return digest


@pytest.mark.parametrize(("before", "after"), EDITS, ids=[before for before, _ in EDITS])
def test_an_edit_of_anything_that_is_used_changes_it(same_name, before, after):
    assert MODULE.count(before) == 1
    assert same_name(MODULE) != same_name(MODULE.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [('"""Doc."""', '"""Other."""'), ("# comment", "# another"), ("(times, target", "(times: list, target")],
)
def test_an_edit_that_changes_no_result_leaves_it(same_name, before, after):
    assert same_name(MODULE) == same_name(MODULE) == same_name(MODULE.replace(before, after))
