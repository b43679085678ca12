"""Read a SavedModel as a pure function: `output, updates = f(x, weights)`.

This package uses `tensorflow.python`, which is TensorFlow's private API. Elsewhere only
`process.memory` and `inputs.image.scale` import it.

The folder is loaded once, and its call is traced for inference and for training. All functions are
inlined. Every read of a variable becomes an argument (a placeholder `weight_<i>`), and every write
to a variable (BatchNorm statistics, dropout seeds) becomes a result. So whoever owns the values of
the weights (a Keras layer) owns all that can change. Only look-up tables, such as a vocabulary,
stay in the graph, which fills them itself (see `tables`).

A graph that can't be taken apart like this, such as one with variables that are read inside a While
or If body, is frozen instead: its values become constants, it can only extract features, and
`Pretrained.reason` says why it can't be fine-tuned.

convolution gradients that are faster on a CPU
folded      BatchNorm as a part of the convolution before it, which is faster
graph       Pretrained and its pure graphs; as functions, as constants, and their shapes
operations  the operations that a graph may hold
check       whether a SavedModel holds any other operation
tf_text     the operations of TensorFlow Text
pure        from a traced call to a pure graph
tables      look-up tables as a part of the graph
stages      the stages of a network, found in its graph
tokenizer   a network for texts in two: its tokenizer, and the rest
bag         the number of times that each word is in a text, as one more output
plain       the same in operations that LiteRT has built in
gradient    whether the gradients of a pure graph are those of the original
mixed       a graph in mixed precision
float32     a graph of another precision in float32
open        what a folder holds: its call, its variables, what it takes
keras_model the same for a Keras model
weigh       what a .keras file would unpack to, checked before it is opened
config      what the config of a .keras file names, checked before it is opened
keras_file  the model of a .keras file, after both checks
pair        a preprocessor of texts and its encoder as one network
pooling     one output of a network as features
trial       whether the features are those of each example alone
trace       from a call to a Pretrained
read        open and trace: from a folder to a Pretrained
untrained   whether the weights of a network seem to be random
network     from a handle, of any kind, to a Pretrained
ranges      the pixel range that a network expects
cut         a network in two parts
kept        a Pretrained in the file of a model
remembered  a Pretrained in the cache, so that a SavedModel is read only once
reusable    a Pretrained as a SavedModel again
"""

from tfxfer.savedmodel.check import check_constants, check_graph, check_saved_model
from tfxfer.savedmodel.cut import cut_after, cut_before, cut_front
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
from tfxfer.savedmodel.keras_file import load_file, reason_of
from tfxfer.savedmodel.network import Network, open_network
from tfxfer.savedmodel.open import variables_of
from tfxfer.savedmodel.plain import with_built_in_operations
from tfxfer.savedmodel.pure import inline_functions, with_constants
from tfxfer.savedmodel.ranges import RANGES, range_of
from tfxfer.savedmodel.read import read
from tfxfer.savedmodel.reusable import reusable
from tfxfer.savedmodel.untrained import is_untrained_file

__all__ = [
    "GRAPHS",
    "RANGES",
    "Kept",
    "Network",
    "Pretrained",
    "PureGraph",
    "Weight",
    "check_constants",
    "check_graph",
    "check_kept",
    "check_saved_model",
    "constant_graph",
    "cut_after",
    "cut_before",
    "cut_front",
    "function",
    "inline_functions",
    "is_untrained_file",
    "keep",
    "load_file",
    "needed",
    "open_network",
    "outline_of",
    "outlined",
    "range_of",
    "read",
    "reason_of",
    "restore",
    "restore_format_1",
    "reusable",
    "variables_of",
    "with_built_in_operations",
    "with_constants",
]
