"""From encoded images to probabilities: `predict`, `evaluate` and `export` share one graph, so that they agree by construction.

    encoded bytes ─preprocess.pixels─> pixels ─network, one graph of constants─> features ─head─> logits ─softmax─> probabilities

model       a finished run, or an export of one, that is ready to answer
weigh       what a model.keras would unpack to, before it is opened
config      ... and what its config names
answers     files to probabilities, whatever is wrong with some of them
predict     files to classes
formats     ... as CSV, JSON, JSON lines or Parquet
judge       labelled images to figures
export      a SavedModel for TensorFlow Serving
warmup      what a server asks it before it says that it is ready
reusable    the network as a SavedModel that can be transferred from again
litert      LiteRT files for phones and small machines
metadata    ... what they say of themselves
place       FOLDER/<version>/, whole or not there
"""

from tfxfer.serving.export import export
from tfxfer.serving.formats import check_target, write
from tfxfer.serving.judge import Judged, evaluate, judge
from tfxfer.serving.litert import export_litert
from tfxfer.serving.model import Served, load_model, open_model
from tfxfer.serving.predict import Prediction, predict
from tfxfer.serving.reusable import export_reusable

__all__ = [
    "Judged",
    "Prediction",
    "Served",
    "check_target",
    "evaluate",
    "export",
    "export_litert",
    "export_reusable",
    "judge",
    "load_model",
    "open_model",
    "predict",
    "write",
]
