"""Write operations that LiteRT has not built in with others that it has.

They are those with which words are counted (see `bag`). The rewritten graph gives the same numbers.
Where that is not sure, as with operations that the network itself has, they stay.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from tfxfer.savedmodel.bag import BELOW


def with_built_in_operations(concrete: Any) -> Any:
    """Return a concrete function without operations that LiteRT lacks, as far as is known how.

    Args:
        concrete: a function without variables.
    """
    graph = concrete.graph.as_graph_def()
    changed = False
    for node in graph.node:
        old = concrete.graph.get_operation_by_name(node.name)
        call = replacement_of(old)
        if call is None:
            continue
        specs = [tf.TensorSpec(one.shape, one.dtype) for one in old.inputs]
        new = tf.function(call, input_signature=specs, autograph=False).get_concrete_function()
        graph.library.function.append(new.function_def)
        node.op = "PartitionedCall"
        node.attr.clear()
        node.attr["f"].func.name = new.function_def.signature.name
        node.attr["Tin"].list.type.extend(one.dtype.as_datatype_enum for one in old.inputs)
        node.attr["Tout"].list.type.extend(one.dtype.as_datatype_enum for one in old.outputs)
        changed = True
    if not changed:
        return concrete
    names = [one.op.name for one in concrete.inputs]

    def whole(*inputs: tf.Tensor) -> list[tf.Tensor]:
        return tf.graph_util.import_graph_def(
            graph,
            input_map=dict(zip(names, inputs, strict=True)),
            return_elements=[one.name for one in concrete.outputs],
            name="",
        )

    signature = [
        tf.TensorSpec(one.shape, one.dtype, name=name)
        for one, name in zip(concrete.inputs, names, strict=True)
    ]
    return tf.function(whole, input_signature=signature, autograph=False).get_concrete_function()


def replacement_of(operation: tf.Operation) -> Callable[..., Any] | None:
    """Return a function that computes what an operation does; None for one that can stay."""
    integers = operation.inputs and operation.inputs[-1].dtype == tf.int64
    if operation.type == "Split" and integers:
        axis, values = operation.inputs
        is_table = values.shape.rank == 2 and values.shape[1] is not None
        if is_table and tf.get_static_value(axis) == 1:
            return partial(split_columns, count=len(operation.outputs))
        return None
    if operation.type == "FloorDiv" and integers:
        is_column = tf.get_static_value(operation.inputs[1]) == 2**BELOW
        return columns_of_hashes if is_column else None
    if operation.type == "DenseBincount" and is_weighted(operation):
        return count_columns
    return None


def is_weighted(bincount: tf.Operation) -> bool:
    """Return whether an operation sums the weights of a table, float32, row by row."""
    columns, _, weights = bincount.inputs
    return (
        not bincount.get_attr("binary_output")
        and weights.dtype == tf.float32
        and columns.shape.rank == 2
        and columns.shape == weights.shape
    )


def split_columns(axis: tf.Tensor, values: tf.Tensor, *, count: int) -> list[tf.Tensor]:
    """Return the columns of a table, int64 [B, count * n], in parts, [B, n] each."""
    width = values.shape[1] // count
    return [values[:, i * width : (i + 1) * width] for i in range(count)]


def columns_of_hashes(hashes: tf.Tensor, divisor: tf.Tensor) -> tf.Tensor:
    """Return the column of each hash, which is below 2**31; LiteRT divides no longer numbers."""
    return tf.cast(tf.cast(hashes, tf.int32) // 2**BELOW, tf.int64)


def count_columns(columns: tf.Tensor, size: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the sum of the weights in each column, float32 [B, size]."""
    return tf.reduce_sum(tf.one_hot(columns, size) * weights[:, :, None], 1)
