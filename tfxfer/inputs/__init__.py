"""What an example is: how it is read, checked, altered and shown. One folder for each kind."""

from tfxfer.inputs import image

__all__ = ["image"]
