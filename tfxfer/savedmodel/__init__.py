"""A SavedModel read as a pure function: `output, updates = f(x, weights)`. The one room with TensorFlow's private parts.

The folder is loaded once, its call is traced for inference and for training, all functions are inlined, every variable READ becomes an
argument (a placeholder `weight_<i>`) and every variable WRITE (BatchNorm statistics, dropout seeds) becomes a result. No state is left and no
handle, so that whoever owns the weights' values (a Keras layer) owns all there is.

A graph that can't be taken apart so (variables read inside a While or If body, embedding look-ups) is frozen instead: its values become
constants, it extracts features, and `Pretrained.reason` says why it can't be fine-tuned.

convolution gradients that are faster on a CPU
graph       Pretrained and its pure graphs; as functions, as constants, their shapes
operations  what a graph may hold
check       whether a SavedModel holds anything else
pure        a traced call to a pure graph
gradient    whether its gradients are the original's
read        a folder to a Pretrained
ranges      which pixels it expects
cut         a network in two
kept        a Pretrained in the file of a model
reusable    a Pretrained as a SavedModel again
"""

from tfxfer.savedmodel.check import check_constants, check_graph, check_saved_model
from tfxfer.savedmodel.cut import after, before, front
from tfxfer.savedmodel.graph import Pretrained, PureGraph, Weight, constant_graph, function, needed
from tfxfer.savedmodel.kept import (
    GRAPHS,
    Kept,
    check_kept,
    keep,
    outline_of,
    outlined,
    restore,
    restore_format_1,
)
from tfxfer.savedmodel.pure import inlined, with_constants
from tfxfer.savedmodel.ranges import RANGES, range_of
from tfxfer.savedmodel.read import read, variables_of
from tfxfer.savedmodel.reusable import reusable

__all__ = [
    "GRAPHS",
    "RANGES",
    "Kept",
    "Pretrained",
    "PureGraph",
    "Weight",
    "after",
    "before",
    "check_constants",
    "check_graph",
    "check_kept",
    "check_saved_model",
    "constant_graph",
    "front",
    "function",
    "inlined",
    "keep",
    "needed",
    "outline_of",
    "outlined",
    "range_of",
    "read",
    "restore",
    "restore_format_1",
    "reusable",
    "variables_of",
    "with_constants",
]
