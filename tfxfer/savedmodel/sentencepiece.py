"""The SentencePiece models of a network for texts, as part of its graph.

TensorFlow Text keeps such a model (Kudo 2018, https://arxiv.org/abs/1808.06226) in a resource that
is made when a SavedModel is loaded. Here the graph makes it itself, so that a file which holds the
graph holds the model, too.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tfxfer.savedmodel.stages import data_inputs, nodes_of
from tfxfer.savedmodel.tf_text import MODEL, WITH_MODEL

# The number of a field in sentencepiece_model.proto: how texts are normalized before and after.
NORMALIZERS = (3, 5)
CHARACTERS = 2  # the number of its field that maps characters to others
SIZE_BYTES = 4  # these say how long the search tree of that field is; the texts follow it
# A unit of the search tree, as in Darts-clone (https://github.com/s-yata/darts-clone).
VALUE, LEAF, FAR, STEP = 1 << 31, 1 << 8, 1 << 9, 10


def makers_of(root: Any) -> dict[int, Callable]:
    """Return the functions that make the resources below an object, by their handles' identity."""
    found: dict[int, Callable] = {}
    seen, todo = set[int](), [root]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if hasattr(one, "_create_resource") and hasattr(one, "resource_handle"):
            found[id(one.resource_handle)] = one._create_resource
        if hasattr(one, "_trackable_children"):
            todo += list(one._trackable_children().values())
    return found


def hold_models(
    nodes: Mapping[str, NodeDef],
    resource_of: Mapping[str, str],
    handles: Mapping[str, Any],
    makers: Mapping[int, Callable],
) -> list[NodeDef]:
    """Return the nodes of all models that nodes use, each in place of its placeholder.

    Args:
        nodes: the nodes of a graph by their names.
        resource_of: for each node that stands for a resource, the name of its placeholder.
        handles: the resource behind each placeholder.
        makers: see `makers_of`.

    Raises:
        LookupError: names a resource that no function makes.
    """
    used = {
        resource_of[name]
        for node in nodes.values()
        if node.op in WITH_MODEL
        for name in data_inputs(node)
        if name in resource_of
    }
    found = []
    for resource in sorted(used):
        if (make := makers.get(id(handles[resource]))) is None:
            raise LookupError(resource)
        found.append(model_node(resource, content_of(make)))
    return found


def content_of(make: Callable) -> bytes:
    """Return the SentencePiece model that a function makes."""
    graph = tf.function(make, autograph=False).get_concrete_function().graph
    (node,) = [one for one in nodes_of(graph.as_graph_def()) if one.op == MODEL]
    return node.attr["model"].s


def model_node(name: str, content: bytes) -> NodeDef:
    """Return the node of a model."""
    node = NodeDef(name=name, op=MODEL)
    node.attr["model"].s = content
    # Networks of one process that have the same model share it.
    node.attr["shared_name"].s = f"tfxfer_{hashlib.sha256(content).hexdigest()}".encode()
    node.attr["container"].s = b""
    node.attr["use_node_name_sharing"].b = False
    return node


def is_sound(content: bytes) -> bool:
    """Return whether a model leads SentencePiece to no memory outside of it.

    The search tree that maps characters is read as it stands in the file. SentencePiece itself
    checks the rest.
    """
    try:
        return bool(content) and all(map(are_mapped_inside, character_maps(content)))
    except DecodeError:
        return False


def character_maps(content: bytes) -> Iterator[bytes]:
    """Yield the maps of characters of a model.

    Raises:
        google.protobuf.message.DecodeError: it is no message.
    """
    for normalizer in fields_of(content):
        if normalizer.field_number in NORMALIZERS and isinstance(normalizer.data, bytes):
            for field in fields_of(normalizer.data):
                if field.field_number == CHARACTERS and field.data:
                    yield field.data


def fields_of(content: bytes) -> UnknownFieldSet:
    """Return the fields of a message whose definition is not at hand."""
    return UnknownFieldSet(Empty.FromString(content))


def are_mapped_inside(characters: bytes) -> bool:
    """Return whether each step through a map of characters, and each text it gives, is inside."""
    size = int.from_bytes(characters[:SIZE_BYTES], "little")
    texts = characters[SIZE_BYTES + size :]
    if size % 4 or not size or not texts or texts[-1]:
        return False
    units = np.frombuffer(characters, "<u4", size // 4, SIZE_BYTES).astype(np.int64)
    inner = np.flatnonzero(units & VALUE == 0)
    units_inner = units[inner]
    jumps = (units_inner >> STEP) << np.where(units_inner & FAR, 8, 0)
    # The next byte of a text changes the last eight bits of the place.
    places = inner ^ jumps
    if np.any((places | 0xFF) >= len(units)):
        return False
    values = units[places[(units_inner & LEAF) > 0]] & (VALUE - 1)
    return bool(np.all(values < len(texts)))
