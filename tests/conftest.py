"""Settings and fixtures of all tests: two logical CPUs, one seed, a cache of their own.

Warnings are errors: see pyproject.toml.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# tfxfer does this, too, but test modules import it after TensorFlow.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Servers of the tests are reached without the machine's proxy. Libraries read either name.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"

import gc
import importlib
import io
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from logs import logged
from PIL import Image
from savedmodels import save_reusable, tiny_network
from sklearn.datasets import load_sample_image
from tensorflow.python import pywrap_tfe

from tfxfer import serving

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


# They take longest. Begun last, they would leave the other cores without work.
FIRST = (
    "test_docs.py",
    "test_tuning.py",
    "test_distribute.py",
    "test_multiworker.py",
    "test_answers.py",
    "test_texts.py",
    "test_backbone.py",
    "test_serving.py",
    "test_beam.py",
    "test_cli.py",
    "test_dataservice.py",
    "test_text_networks.py",
    "test_texts_sources.py",
    "test_transfer.py",
    "test_grow.py",
)


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: a test that waits leaves a core without work."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(FIRST)))


@pytest.fixture(scope="module", autouse=True)
def only_new_garbage():
    """Let no test look for garbage among what stays: libraries, collected tests, other files' work.

    After four files that already takes a tenth of a second each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed():
    """The same draws in every test, whatever ran before.

    Only those of `tf.random.normal` and its like, called outside a function, may differ.
    """
    with pytest.MonkeyPatch.context() as patch:
        # To set a seed, TensorFlow forgets all functions that it has prepared. A model that tests
        # share would be optimized again for each of them, which takes seconds.
        patch.setattr(pywrap_tfe, "TFE_ContextClearCaches", lambda handle: None)
        keras.utils.set_random_seed(0)


@pytest.fixture
def said():
    """The lines that tfxfer logs during the test."""
    with logged() as lines:
        yield lines


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """A cache of this run's own, so that nothing on the machine is read or changed."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["TFXFER_CACHE_DIR"] = str(folder)
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))
    return folder


@pytest.fixture(scope="session")
def tiny_savedmodel(tmp_path_factory) -> str:
    """A reusable SavedModel: float32 [B, 32, 32, 3] in [0, 1] to 16 features.

    It has three stages, BatchNorm, swish and dropout.
    """
    return save_reusable(tiny_network(dropout=0.3), tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_centred(tmp_path_factory) -> str:
    """The same, but its graph tells the range of pixels: no run has to try ranges."""
    network = tiny_network(dropout=0.3, centred=True)
    return save_reusable(network, tmp_path_factory.mktemp("centred") / "model")


@pytest.fixture(scope="module")
def opened_once():
    """Open the model of a run once in a module, while no file of it changes.

    To open one takes seconds.
    """
    opened: dict[tuple, serving.Served] = {}

    def open_model(folder, **options) -> serving.Served:
        states = [(file, file.stat()) for file in sorted(Path(folder).rglob("*"))]
        files = tuple((file, state.st_mtime_ns, state.st_size) for file, state in states)
        key = (str(folder), files, *sorted(options.items()))
        if key not in opened:
            opened[key] = serving.open_model(folder, **options)
        return opened[key]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("serving.predict", "serving.judge", "explore.seen"):
            patch.setattr(importlib.import_module(f"tfxfer.{name}"), "open_model", open_model)
        yield


def crops(name: str, count: int, seed: int) -> list[Image.Image]:
    """Small photos cut out of one of scikit-learn's two pictures."""
    picture, rng = load_sample_image(name), np.random.default_rng(seed)
    height, width = picture.shape[:2]
    found = []
    for _ in range(count):
        size = int(rng.integers(60, 120))
        top, left = rng.integers(0, height - size), rng.integers(0, width - size)
        found.append(Image.fromarray(picture[top : top + size, left : left + size]))
    return found


def jpeg(image: Image.Image, **options) -> bytes:
    """The picture as a JPEG file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of 2 x 30 real JPEG photos in the class folders `china` and `flower`."""
    root = tmp_path_factory.mktemp("photos")
    for label, seed in (("china", 1), ("flower", 2)):
        (root / label).mkdir()
        for i, image in enumerate(crops(f"{label}.jpg", 30, seed)):
            (root / label / f"{label}{i:02d}.jpg").write_bytes(jpeg(image))
    return root
