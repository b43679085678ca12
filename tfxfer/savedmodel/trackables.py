"""Go through all that TensorFlow keeps below an object, such as a loaded SavedModel."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf


def trackables_of(root: Any) -> Iterator[Any]:
    """Yield `root` and every object below it, each once; nothing below a variable."""
    seen, todo = set[int](), [root]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if not isinstance(node, tf.Variable) and hasattr(node, "_trackable_children"):
            todo += list(node._trackable_children().values())
