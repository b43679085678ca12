"""Export a finished run's model as a SavedModel that TensorFlow Serving serves."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfxfer.errors import ServingError
from tfxfer.inputs import find
from tfxfer.run import Finished, open_run
from tfxfer.serving import warmup
from tfxfer.serving.kind import DECISION, KIND, TASK
from tfxfer.serving.model import Bad, Network, open_network
from tfxfer.serving.place import EXTRA, placed

LOG = logging.getLogger(__name__)
CARD, BATCHING = "MODEL_CARD.md", "batching.config"
# A request waits 2 ms for others to join its batch. A CPU computes batches of 32 fastest.
CONFIG = """max_batch_size { value: 32 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 2 }
"""


def export(
    folder: str | os.PathLike,
    to: str | os.PathLike,
    *,
    version: int | None = None,
    require_accuracy: float | None = None,
    on_bad_image: Bad = "error",
    trust: bool = False,
) -> Path:
    """Write a finished run's model as a SavedModel that TensorFlow Serving serves.

    It is written to `<to>/<version>/`. In all its signatures, the batch is dimension 0:

    - serving_default: `inputs`, encoded images, string [B], to `classes`, string [B, C], and
      `scores`, float32 [B, C], the most probable class first; labels in the same way. Of numbers,
      to `numbers`, float32 [B, K], and where the intervals are known, their ends `low` and `high`.
      Of several columns, each has an output of its name.
    - classify, for classes only: the same for TensorFlow Serving's Classify call; `inputs` are
      serialized tf.Examples with `image/encoded` (`Kind.FEATURE`).
    - probabilities: `inputs`, encoded images, to `probabilities`, float32 [B, C], in the order of
      `assets/labels.txt`, and, where the run knows it, `unknown`, float32 [B], the score for "none
      of these" (see `tfxfer.evaluate.doubt`). Of numbers it is called numbers, and so is its
      output.
    - tensor: `inputs`, pixels in the backbone's value range, float32 [B, height, width, 3], to
      `probabilities`.
    - features: `inputs`, encoded images, to `features`, float32 [B, F], what the head sees.

    The folder `assets.extra/` holds warm-up requests, `batching.config`, the model card and
    `doubt.npz`.

    Args:
        version: by default the largest one in the folder + 1.
        require_accuracy: refuse a model with a lower accuracy (see `check_accuracy`).
        on_bad_image: "error" makes a request fail if one of its images can't be decoded; "null"
            gives the row of such an image empty classes and zeros, and answers the others.

    Returns: the folder of the version. It appears under its name when it is complete.

    Raises:
        RunError: the folder does not hold a finished run.
        ServingError: the model can't be loaded or is not accurate enough, the version exists, or
            the folder can't be written.
    """
    run = open_run(folder)
    check_accuracy(run, require_accuracy)
    settings = run.settings()
    difference, engine = (
        settings.get(name, {}).get("value") for name in ("served_difference", "engine")
    )
    if isinstance(difference, float):
        LOG.info(
            f"the run's figures are of features by {engine}; probabilities by TensorFlow, as "
            f"exported, differed from them by at most {difference:.1e}"
        )

    def write_all(aside: Path) -> None:
        LOG.info("Writing the SavedModel")
        write(open_network(folder, trust=trust, bad=on_bad_image), run.path("labels.txt"), aside)
        extras(run, aside, "doubt.npz", DECISION)
        (aside / EXTRA / KIND).write_text(f"{run.kind().NAME}\n")
        (aside / EXTRA / TASK).write_text(f"{run.task().NAME}\n")
        (aside / EXTRA / BATCHING).write_text(CONFIG)

    return placed(to, version, write_all)


def check_accuracy(run: Finished, required: float | None) -> None:
    """Refuse a run whose accuracy is below what is required.

    The accuracy is that on test, or on held-out examples where the run has no test part.

    Raises:
        ServingError: the accuracy is too low, or not known.
    """
    if required is None:
        return
    metrics = run.metrics()
    part, called = next(
        (
            (name, called)
            for name, called in (("test", "test"), ("validation", f"held-out {run.kind().MANY}"))
            if metrics.get(name)
        ),
        (None, ""),
    )
    if part is None:
        raise ServingError(
            f"{run.folder} has no held-out examples, so that nothing is known of its accuracy; "
            f"{required:g} is required. Give the data a test part."
        )
    figures = metrics[part]
    score = run.task().SCORE
    numbers = (score, "low", "high", "n")
    if not isinstance(figures, dict) or not all(
        isinstance(figures.get(name), int | float) for name in numbers
    ):
        raise ServingError(
            f"{run.path('metrics.json')} has no {', '.join(numbers)} of {called}. Run it again."
        )
    said = (
        f"{score} {figures[score]:.3f} on {called} "
        f"(95 % interval {figures['low']:.3f} to {figures['high']:.3f}, n = {figures['n']:,})"
    )
    if figures[score] < required:
        raise ServingError(
            f"{run.folder} has {said}; {required:g} is required. Nothing was exported."
        )
    LOG.info(f"{run.folder} has {said}")


def extras(run: Finished, folder: Path, *names: str) -> None:
    """Copy the model card and other files of a run into an export's `assets.extra`.

    Files that the run does not have are left out.
    """
    (folder / EXTRA).mkdir(exist_ok=True)
    for name in (CARD, *names):
        if run.path(name).is_file():
            shutil.copyfile(run.path(name), folder / EXTRA / name)


def write(network: Network, labels: Path, folder: Path) -> None:
    module = tf.Module(name="tfxfer")
    module.labels = tf.saved_model.Asset(str(labels))
    encoded = tf.TensorSpec((None,), tf.string, name="inputs")

    feature = find(network.takes.KIND).FEATURE

    def answer(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        predictions = network.answer(inputs)["probabilities"]
        return network.task.served(predictions, network.classes, network.decision)

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        examples = tf.io.parse_example(inputs, {feature: tf.io.FixedLenFeature((), tf.string)})
        return answer(examples[feature])

    output = network.task.OUTPUT

    def named(outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {output if name == "probabilities" else name: one for name, one in outputs.items()}

    def of(*names: str) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        return lambda inputs: named(
            {name: rows for name, rows in network.answer(inputs).items() if name in names}
        )

    def tensor(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: network.call(inputs)["probabilities"]}

    asked = {
        "serving_default": answer,
        output: of("probabilities", "unknown"),
    }
    asked |= {"classify": classify} if network.task.CLASSES else {}
    asked |= {"features": of("features")} if "features" in network.has else {}
    signatures = {
        name: tf.function(call, input_signature=[encoded], autograph=False)
        for name, call in asked.items()
    }
    spec = tf.TensorSpec((None, *network.takes.shape), tf.float32, name="inputs")
    signatures["tensor"] = tf.function(tensor, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    if "classify" in asked:
        name_method(folder / "saved_model.pb", "classify", "tensorflow/serving/classify")
    (folder / EXTRA).mkdir()
    sample = network.takes.sample()
    predict = {name: tf.make_tensor_proto([sample]) for name in asked if name != "classify"}
    predict["tensor"] = tf.compat.v1.make_tensor_proto(
        0.0, tf.float32, shape=(1, *network.takes.shape)
    )
    example = tf.train.Example(
        features=tf.train.Features(
            feature={feature: tf.train.Feature(bytes_list=tf.train.BytesList(value=[sample]))}
        )
    )
    examples = {"classify": example.SerializeToString()} if "classify" in asked else {}
    warmup.write(folder / EXTRA, predict, examples)


def name_method(path: Path, signature: str, method: str) -> None:
    """Say which of TensorFlow Serving's calls a signature is for.

    `tf.saved_model.save` names them all "predict".
    """
    proto = SavedModel.FromString(path.read_bytes())
    proto.meta_graphs[0].signature_def[signature].method_name = method
    path.write_bytes(proto.SerializeToString(deterministic=True))
