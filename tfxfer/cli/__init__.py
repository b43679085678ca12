"""The command line."""

from tfxfer.cli.main import main

__all__ = ["main"]
