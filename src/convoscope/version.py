"""The version, in one place: the package, its results and its stores name it."""

__version__ = "0.1.0"
