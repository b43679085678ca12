"""Compute the features of all examples with the frozen network, and cache them by content."""

from tfxfer.data.decoding import Decoder, named, reason
from tfxfer.features.computation import (
    Computation,
    compute_shards,
    decoder_for,
    key_of,
    of_plain,
    of_prefix,
)
from tfxfer.features.extraction import Extractor, extract, find_missing, plain_values
from tfxfer.features.progress import Progress
from tfxfer.features.table import Columns, Features

__all__ = [
    "Columns",
    "Computation",
    "Decoder",
    "Extractor",
    "Features",
    "Progress",
    "compute_shards",
    "decoder_for",
    "extract",
    "find_missing",
    "key_of",
    "named",
    "of_plain",
    "of_prefix",
    "plain_values",
    "reason",
]
