"""What all figures share: matplotlib without a screen, and files that are written whole."""

import io
from pathlib import Path
from typing import Any

from spectrum.records.files import write_bytes


def pyplot() -> Any:
    """Matplotlib's pyplot, without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all, and close it.

    Args:
        figure: a matplotlib figure.
        path: its file; the ending is the format, png or svg.
    """
    buffer = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(buffer, format=path.suffix[1:], dpi=130, bbox_inches="tight", metadata=metadata)
    pyplot().close(figure)
    write_bytes(path, buffer.getvalue())
