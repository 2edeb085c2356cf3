"""The report of planted changes, and the script that makes it."""

import ast

import mutation

SOURCE = """
@exact(1)
@exact(0, order=0)
def forecast(times):
    @wraps(times)
    def inner():
        return 1

    return inner


class A:
    @property
    def x(self):
        if self.y < 0:
            refuse(
                "y is negative"
            )
        return self.y

    @classmethod
    def make(cls):
        raise ValueError("no")
"""


def test_decorators_are_written_as_the_calls_that_they_stand_for():
    found = ast.parse(mutation.without_decorators(SOURCE))
    expected = ast.parse("""
def forecast(times):
    def inner():
        return 1
    inner = wraps(times)(inner)

    return inner
forecast = exact(1)(exact(0, order=0)(forecast))


class A:
    def x(self):
        if self.y < 0:
            refuse("y is negative")
        return self.y
    x = property(x)

    @classmethod
    def make(cls):
        raise ValueError("no")
""")
    assert ast.dump(found) == ast.dump(expected)


def test_messages_alone_are_left_as_they_are():
    marked = [
        line.split("#")[0].strip() for line in mutation.plain_messages(SOURCE).splitlines() if "no mutate" in line
    ]
    assert marked == ["refuse(", '"y is negative"', ")", 'raise ValueError("no")']


def test_a_report_is_read_as_it_was_written():
    parts = {
        "a.py": mutation.Part(9, 8, [("f", "x \\| y", "x & y", "both are sets of bits")]),
        "b.py": mutation.Part(2, 2, []),
    }
    text = mutation.rendered(parts)
    assert mutation.read_report(text) == parts and "**10 of 11 changes noticed (90.9 %).**" in text


def test_the_committed_report_has_nine_of_ten_noticed_and_explains_the_others():
    parts = mutation.read_report(mutation.REPORT.read_text())
    for pattern in mutation.SUBJECTS:
        assert any(name.startswith(pattern.removesuffix("*")) for name in parts), pattern
    changes, noticed = sum(p.changes for p in parts.values()), sum(p.noticed for p in parts.values())
    assert changes > 5000 and noticed / changes >= 0.9
    assert changes - noticed == sum(len(part.left) for part in parts.values())
    assert not [row for part in parts.values() for row in part.left if row[3].startswith(mutation.OPEN)]
