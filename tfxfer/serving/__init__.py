"""From encoded images to probabilities.

`predict`, `evaluate` and `export` share one graph, so that they always agree:

    encoded bytes ─preprocess.pixels─> pixels ─network, one graph of constants─> features
    features ─head─> logits ─task─> probabilities

model       a finished run, or an export of one, that is ready to answer
kind        which kind of example a model takes
answers     files to probabilities, also where some of the files are damaged
predict     files to classes
formats     predictions as CSV, JSON, JSON lines, Parquet or an Excel workbook
judge       labelled images to figures
export      a SavedModel for TensorFlow Serving
warmup      requests that a server sends to it before it reports that it is ready
reusable    the network as a SavedModel that can be transferred from again
litert      LiteRT files for phones and small machines
metadata    the metadata of LiteRT files
place       FOLDER/<version>/, which appears when it is complete
"""

from tfxfer.serving.export import export
from tfxfer.serving.formats import check_target, write
from tfxfer.serving.judge import Judged, evaluate, judge
from tfxfer.serving.litert import export_litert
from tfxfer.serving.model import Served, load_model, open_model
from tfxfer.serving.predict import Answer, Prediction, predict, predict_contents
from tfxfer.serving.reusable import export_reusable

__all__ = [
    "Answer",
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
    "predict_contents",
    "write",
]
