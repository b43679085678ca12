"""Check the config of a model.keras before Keras builds the classes and calls the functions in it.

Keras' safe mode refuses a list of names. Anything else that Keras exports would be built or called,
and some of that loads files, downloads, or takes memory. So only what networks are made of is
allowed here: classes, functions, calls and shapes are checked.
"""

import functools
from collections.abc import Iterator
from typing import Any

import keras

from tfxfer.savedmodel.weigh import check_size

# Modules whose classes compute, or hold settings of those that do.
CLASSES = {
    "keras",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.losses",
    "keras.metrics",
    "keras.models",
    "keras.optimizers",
    "keras.optimizers.schedules",
    "keras.quantizers",
    "keras.random",
    "keras.regularizers",
}
# Keras looks up its own functions under the module "builtins".
FUNCTIONS = ("builtins", "keras.activations", "keras.ops")
OPERATIONS = "keras.src.ops."  # module of the operations that keras.ops makes of symbolic tensors
FUNCTIONAL = ("keras.src.models.functional", "Functional")
# Layers that no network here needs: they run programs, or hold words.
NEVER_NEEDED = {
    "FlaxLayer",
    "IntegerLookup",
    "JaxLayer",
    "StringLookup",
    "TFSMLayer",
    "TextVectorization",
    "TorchModuleWrapper",
}
SYMBOL = "__keras_tensor__"
DROPPED = {"training", "mask"}  # arguments that not every layer takes
VALUES = {"__tensor__", "__numpy__"}
PLAIN = {SYMBOL, "__bytes__", "__ellipsis__", "__slice__"}
KERAS = {"builtins", "keras", "keras_cv", "keras_hub", "keras_nlp"}  # what Keras itself imports
TRUST = "Use --trust (trust=True) only if you know who made it"


def check_config(config: Any, *, trust: bool = False) -> None:
    """Refuse a config that names what no network for images needs, or that has huge shapes.

    The settings with which the model was compiled are ignored, as Keras does with `compile=False`.

    Args:
        config: the values of config.json.
        trust: check only the shapes.

    Raises:
        ValueError: names the class, the function, the layer that is called, or the shape.
    """
    if isinstance(config, dict):
        config = {name: value for name, value in config.items() if name != "compile_config"}
    for value in dicts_in(config):
        check_shapes(value)
        if trust:
            continue
        if "class_name" in value and "config" in value:
            check_class(value)
        if "inbound_nodes" in value:
            check_calls(value)
        if value.get("unroll"):
            raise ValueError("a layer unrolls its steps, which takes memory for each. " + TRUST)


def dicts_in(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every dict in JSON values, the outer one first."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def check_shapes(value: dict[str, Any]) -> None:
    """Refuse a shape that is too large for any image.

    Raises:
        ValueError: names the shape.
    """
    for name, inner in value.items():
        if name.endswith("shape"):
            check_size(inner)


def check_class(value: dict[str, Any]) -> None:
    """Refuse a class or function that Keras would build or call and that is not part of a network.

    Classes of other packages are left to Keras, which takes only those that the user's own program
    has registered.

    Raises:
        ValueError: names the class or function.
    """
    name, module = value["class_name"], value.get("module")
    if name in VALUES:
        check_value(value["config"])
        return
    if name in PLAIN or is_registered(value):
        return
    if not isinstance(name, str) or not isinstance(module, str):
        raise ValueError(f"it names {name!r} without a module. {TRUST}")
    if module.split(".")[0] not in KERAS:
        return
    if name == "function":
        name, allowed = value["config"], is_function(module)
    else:
        allowed = is_part(module, name)
    if not allowed:
        raise ValueError(f"it names {module}.{name}, which no network of images needs. {TRUST}")


def check_value(config: Any) -> None:
    """Refuse a constant that is anything else than numbers that are written out in the file.

    Raises:
        ValueError: names its dtype.
    """
    dtype = config.get("dtype") if isinstance(config, dict) else config
    if not isinstance(dtype, str) or dtype == "string":
        raise ValueError(f"it holds a constant of the type {dtype!r}; expected numbers. {TRUST}")
    keras.utils.standardize_dtype(dtype)


def is_registered(value: dict[str, Any]) -> bool:
    """Whether code that was imported in this process has registered this name with Keras.

    Keras then takes the class or function from there.
    """
    name = value.get("registered_name", value["class_name"])
    if value["class_name"] == "function":
        name = value["config"]
    return isinstance(name, str) and keras.saving.get_registered_object(name) is not None


def is_function(module: str) -> bool:
    """Whether the functions of a module compute, and do nothing else."""
    return module in FUNCTIONS or module.startswith("keras.ops.")


def is_part(module: str, name: str) -> bool:
    """Whether a Keras class is one that networks for images are made of."""
    if (module, name) == FUNCTIONAL or module.startswith(OPERATIONS):
        return True
    if module not in CLASSES or name in NEVER_NEEDED:
        return False
    place = functools.reduce(getattr, module.split(".")[1:], keras)
    return isinstance(getattr(place, name, None), type)


def check_calls(layer: dict[str, Any]) -> None:
    """Refuse a layer that is called on something other than the output of a layer.

    Keras would compute such a call while it loads the model.

    Raises:
        ValueError: names the layer.
    """
    for node in layer["inbound_nodes"]:
        if not isinstance(node, dict) or not takes_output(node):
            raise ValueError(f"it calls {layer.get('name')!r} on no other layer's output. {TRUST}")


def takes_output(node: dict[str, Any]) -> bool:
    """Whether one of a call's arguments is another layer's output, which makes the call symbolic.

    Arguments that Keras may drop before the call do not count, nor do values inside another object.
    """
    named = node.get("kwargs") or {}
    waiting = [node.get("args"), *(named[name] for name in named if name not in DROPPED)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            if value.get("class_name") == SYMBOL:
                return True
            if "class_name" not in value:
                waiting += value.values()
    return False
