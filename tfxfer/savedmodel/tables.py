"""Look-up tables of a network, such as a vocabulary, as part of its graph.

In a SavedModel, a table is a resource that is filled from a file beside the graph when the model is
loaded. Here its contents become constants, and the graph fills the table when it first runs, so
that a file which holds the graph holds the table too.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tfxfer.savedmodel.tf_text import WITH_TABLE

# Operations that read a table: where each says the types of the table's keys and values.
FINDS = {"LookupTableFindV2": ("Tin", "Tout")}
READS = frozenset({"LookupTableSizeV2", *FINDS, *WITH_TABLE})
FILLED = "/tfxfer_filled"  # ends the name of the node that fills a table


def find_types(readers: Iterable[NodeDef]) -> tuple[tf.DType, tf.DType]:
    """Return the types of keys and values of a table, from the nodes that read it."""
    for node in readers:
        if node.op in FINDS:
            keys, values = (tf.as_dtype(node.attr[name].type) for name in FINDS[node.op])
            return keys, values
    return tf.string, tf.int64  # a vocabulary, which only an operation of TF Text reads


def table_nodes(name: str, handle: Any, readers: Iterable[NodeDef]) -> list[NodeDef]:
    """Return the nodes of a table with the contents that it has now.

    Args:
        name: the name of the node that stands for the table.
        handle: the table's resource.
        readers: the nodes that read it.

    Raises:
        tensorflow.errors.OpError: the resource is no table, or one that can't be copied.
    """
    types = find_types(readers)
    keys, values = tf.raw_ops.LookupTableExportV2(
        table_handle=handle, Tkeys=types[0], Tvalues=types[1]
    )
    order = np.argsort(keys.numpy(), kind="stable")  # a table has no order of its own
    contents = [
        constant(f"{name}/{what}", tf.gather(array, order).numpy())
        for what, array in (("keys", keys), ("values", values))
    ]
    digest = hashlib.sha256()
    for node in contents:
        digest.update(node.attr["value"].SerializeToString(deterministic=True))
    table = NodeDef(name=name, op="HashTableV2")
    # Networks of one process that have the same table share it.
    table.attr["shared_name"].s = f"tfxfer_{digest.hexdigest()}".encode()
    table.attr["key_dtype"].type, table.attr["value_dtype"].type = (
        one.as_datatype_enum for one in types
    )
    fill = NodeDef(name=f"{name}{FILLED}", op="InitializeTableV2")
    fill.input.extend([name, *(node.name for node in contents)])
    fill.attr["Tkey"].type, fill.attr["Tval"].type = (one.as_datatype_enum for one in types)
    return [*contents, table, fill]


def constant(name: str, value: Any) -> NodeDef:
    """Return a node that holds a value of NumPy."""
    node = NodeDef(name=name, op="Const")
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    node.attr["dtype"].type = node.attr["value"].tensor.dtype
    return node


def hold_tables(
    nodes: Mapping[str, NodeDef], resource_of: Mapping[str, str], handles: Mapping[str, Any]
) -> list[NodeDef]:
    """Return the nodes of all tables that nodes read, each in place of its placeholder.

    Every node that reads a table is made to wait until the table is filled.

    Args:
        nodes: the nodes of a graph by their names; those that read tables are changed.
        resource_of: for each node that stands for a resource, the name of its placeholder.
        handles: the resource behind each placeholder.

    Raises:
        tensorflow.errors.OpError: a resource is no table.
    """
    readers: dict[str, list[NodeDef]] = {}
    for node in nodes.values():
        if node.op in READS:
            for name in node.input:
                if resource := resource_of.get(name.split(":")[0]):
                    readers.setdefault(resource, []).append(node)
    found: list[NodeDef] = []
    for resource, own in readers.items():
        found += table_nodes(resource, handles[resource], own)
        for node in own:
            node.input.append(f"^{resource}{FILLED}")
    return found
