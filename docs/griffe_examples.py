"""Shows the doctests of docstrings as code on the API page. mkdocs.yml loads it into griffe, which reads docstrings.

Docstrings here say `Example:`, as Google's style does; griffe knows the section by the name `Examples:` alone.
"""

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class DoctestExamples(Extension):
    """Renames `Example:` to `Examples:` in every docstring before it is parsed."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rename the section in one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(r"\1Examples:", obj.docstring.value)
