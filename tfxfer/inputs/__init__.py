"""The kinds of examples, a folder each: how they are read, checked, altered and shown."""

from tfxfer.inputs import image

__all__ = ["image"]
