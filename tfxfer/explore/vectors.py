"""Write the features of labelled examples to a file, for other programs."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from tfxfer.data import Examples
from tfxfer.errors import TfxferError
from tfxfer.features import Features
from tfxfer.files import replaced
from tfxfer.serving.formats import valid

ROWS = 4096  # rows in a row group of Parquet
ENDINGS = (".parquet", ".npz")


def write_vectors(features: Features, to: str | os.PathLike[str]) -> int:
    """Write one row for each example, and return how many.

    A Parquet file has the columns `file`, `split`, `label` and `vector`, a list of float32. An .npz
    file has the arrays `files`, `splits`, `labels` and `vectors`, [n, d]; all of it must fit into
    memory.

    Raises:
        TfxferError: the ending of the file is another one, or it can't be written.
    """
    ending = Path(to).suffix.lower()
    if ending not in ENDINGS:
        raise TfxferError(f"--to {os.fspath(to)}: expected a file that ends in .parquet or .npz.")
    try:
        with replaced(to) as file:
            if ending == ".npz":
                examples = features.examples
                np.savez_compressed(
                    file,
                    files=np.array(examples.files),
                    splits=np.array(examples.splits),
                    labels=np.array(texts_of(examples)),
                    vectors=features.output[np.arange(len(features))],
                )
            else:
                write_parquet(features, file)
    except OSError as error:
        raise TfxferError(
            f"{os.fspath(to)} can't be written: {error.strerror or error}."
        ) from error
    return len(features)


def write_parquet(features: Features, file: object) -> None:
    """Write the rows in groups, so that they need not fit into memory."""
    width = features.output.shape[1]
    schema = pa.schema(
        [
            ("file", pa.string()),
            ("split", pa.string()),
            ("label", pa.string()),
            ("vector", pa.list_(pa.float32(), width)),
        ]
    )
    with parquet.ParquetWriter(file, schema) as writer:
        for group in groups(features, schema):
            writer.write_table(group)


def texts_of(examples: Examples) -> list[str]:
    """Return the label of each example as text."""
    task, names = examples.task, examples.classes
    return [task.said_of_target(label, names) for label in examples.labels]


def groups(features: Features, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows as tables."""
    examples, width = features.examples, features.output.shape[1]
    for start in range(0, len(features), ROWS):
        rows = np.arange(start, min(start + ROWS, len(features)))
        vectors = np.asarray(features.output[rows], np.float32)
        columns = [
            pa.array([valid(examples.files[i]) for i in rows]),
            pa.array([examples.splits[i] for i in rows]),
            pa.array([valid(text) for text in texts_of(examples.take(rows))]),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
        ]
        yield pa.Table.from_arrays(columns, schema=schema)
