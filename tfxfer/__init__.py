"""Transfer learning for Keras: pretrained SavedModels as ordinary Keras layers, and the path from photos to a served model."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"

LAYERS = ("tfxfer.backbone", "tfxfer.heads")


def register_layers() -> None:
    """Let `keras.models.load_model` know tfxfer's layers: Keras imports modules by itself only for packages named keras*."""
    keras = sys.modules["keras"]
    if keras.config.backend() == "tensorflow":
        for name in LAYERS:
            importlib.import_module(name)


class AfterKeras(importlib.abc.MetaPathFinder):
    """Registers the layers as soon as Keras is imported, so that `import tfxfer` alone stays light."""

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                register_layers()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "keras" in sys.modules:
    register_layers()
else:
    sys.meta_path.insert(0, AfterKeras())
