"""An object that runs code when it is unpickled, to show that nothing here unpickles it."""

from pathlib import Path


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
