"""Transfer learning for Keras with pretrained SavedModels.

The SavedModels become ordinary Keras layers, and the package covers the whole path from photos to a
served model.
"""

import importlib
import importlib.abc
import os
import sys

import lazy_loader

# TensorFlow turns oneDNN on by itself only on some CPUs. On the others it computes more slowly
# without oneDNN, and the last bits of an image's features depend on its place in the batch.
# TensorFlow reads these variables once, so they have an effect only where tfxfer is imported first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# TensorFlow's own allocator keeps freed memory, as it does by default where there is a GPU. Without
# it, most operations get their result's memory from the system anew and hand it back, which took
# between a hundredth and a third of the time (benchmarks/LOG.md). Its limit would be 64 GB; 1 TB is
# more than machines have, so that only the system limits it.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(1 << 20))

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.2.0"

LAYERS = (
    "tfxfer.backbone",
    "tfxfer.heads.layers",
    "tfxfer.tuning.optimizers",
    "tfxfer.distribute.multiworker",
)


def register_layers() -> None:
    """Register tfxfer's layers, so that `keras.models.load_model` finds them.

    Keras imports modules by itself only for packages named keras*.
    """
    keras = sys.modules["keras"]
    if keras.config.backend() == "tensorflow":
        for name in LAYERS:
            importlib.import_module(name)


class AfterKeras(importlib.abc.MetaPathFinder):
    """Registers the layers as soon as Keras is imported, so that `import tfxfer` alone is fast."""

    def find_spec(self, name, path=None, target=None):
        """Return the spec of Keras from the other finders; its import also registers the layers."""
        if name != "keras":
            return None
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = then(spec.loader.exec_module, self)
            if spec is not None:
                return spec
        return None


def then(load, finder):
    """Return a function that calls `load` and then registers the layers.

    A program that only asks whether Keras is installed, as TensorFlow does, gets a spec, and
    nothing is imported.
    """

    def exec_module(module):
        load(module)
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
            register_layers()

    return exec_module


if "keras" in sys.modules:
    register_layers()
else:
    sys.meta_path.insert(0, AfterKeras())
