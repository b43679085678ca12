"""The SentencePiece models of a network for texts, as part of its graph.

TensorFlow Text keeps such a model (Kudo 2018, https://arxiv.org/abs/1808.06226) in a resource that
is made when a SavedModel is loaded. Here the graph makes it itself, so that a file which holds the
graph holds the model, too.

The library trusts the models that it reads: one that was made to attack it makes the process crash,
or read other memory than the model's. So these operations are only allowed with --trust.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from tfxfer.savedmodel.stages import data_inputs, nodes_of
from tfxfer.savedmodel.tf_text import MODEL, WITH_MODEL
from tfxfer.savedmodel.trackables import trackables_of


def makers_of(root: Any) -> dict[int, Callable]:
    """Return the functions that make the resources below an object, by their handles' identity."""
    return {
        id(node.resource_handle): node._create_resource
        for node in trackables_of(root)
        if hasattr(node, "_create_resource") and hasattr(node, "resource_handle")
    }


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
    """Return the SentencePiece model that a function makes.

    Raises:
        LookupError: it makes something else.
    """
    graph = tf.function(make, autograph=False).get_concrete_function().graph
    held = [one.attr["model"].s for one in nodes_of(graph.as_graph_def()) if one.op == MODEL]
    if len(held) != 1:
        raise LookupError(f"{len(held)} SentencePiece models in one place")
    return held[0]


def model_node(name: str, content: bytes) -> NodeDef:
    """Return the node of a model."""
    node = NodeDef(name=name, op=MODEL)
    node.attr["model"].s = content
    # Networks of one process that have the same model share it.
    node.attr["shared_name"].s = f"tfxfer_{hashlib.sha256(content).hexdigest()}".encode()
    node.attr["container"].s = b""
    node.attr["use_node_name_sharing"].b = False
    return node
