"""Compute the features of all examples with the frozen network, and cache them by content."""

from tfxfer.data.decoding import Decoder, named, reason
from tfxfer.features.computation import (
    Computation,
    compute_batches,
    decoder_for,
    key_of,
    of_plain,
    of_prefix,
)
from tfxfer.features.extraction import Extractor, extract, plain_values, prepare_missing
from tfxfer.features.progress import Progress
from tfxfer.features.table import Columns, Features

__all__ = [
    "Columns",
    "Computation",
    "Decoder",
    "Extractor",
    "Features",
    "Progress",
    "compute_batches",
    "decoder_for",
    "extract",
    "key_of",
    "named",
    "of_plain",
    "of_prefix",
    "plain_values",
    "prepare_missing",
    "reason",
]
