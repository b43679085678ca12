"""Make a larger run from a finished one: add classes or examples, and fit only the head again.

run     opens a run, reads the new examples, and writes the grown run
before  what a run still knows of the examples that it was fitted on
fit     the head, fitted again on the old and the new examples
"""

from tfxfer.growth.run import grow

__all__ = ["grow"]
