"""The front door in Python: fit a model to examples, use it, and keep it as a run's folder."""

import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import keras

from tfxfer import report, serving
from tfxfer.data import Examples, from_arrays, from_dataset
from tfxfer.data.arrays import as_files, find_in_arrays
from tfxfer.errors import RunError
from tfxfer.recipe import find
from tfxfer.run import Finished, Run, describe_call, open_run
from tfxfer.serving import Prediction

EXPORTS: dict[str, Callable[..., Path]] = {
    "savedmodel": serving.export,
    "litert": serving.export_litert,
    "reusable": serving.export_reusable,
}


class Transfer:
    """A pretrained network that becomes a classifier of your photos.

    `fit` does what `tfxfer run` does. Its results stay in a temporary folder, until `save` copies
    them to a folder of yours.

    Args:
        backbone: name, folder, archive or URL of a pretrained network, as for `--backbone`.
        head: name of a head, as for `--head`; or, for the recipe frozen, a Keras layer from
            features [B, F] to logits [B, C], or a function from the number of classes to such a
            layer.
        settings: the options that every recipe has, such as seed=1 (see `tfxfer.Run`).

    Example::

        model = tfxfer.Transfer("efficientnet-lite0").fit("photos/")
        model.predict(["new.jpg"])[0].predicted
        model.save("cats-and-dogs")
    """

    def __init__(
        self,
        backbone: str | PathLike[str] = "efficientnet-lite0",
        *,
        head: str | keras.layers.Layer | Callable[[int], keras.layers.Layer] = "auto",
        **settings: Any,
    ):
        self.backbone, self.head, self.settings = backbone, head, settings
        self._run: Finished | None = None
        self._temporary: tempfile.TemporaryDirectory | None = None

    def fit(
        self,
        data: Any,
        labels: Any = None,
        *,
        recipe: str = "frozen",
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> "Transfer":
        """Train a model, and judge it on examples that it has not seen.

        Args:
            data: a folder, a .csv table, "tfds:NAME", "demo" or anything else that `--data` takes;
                `tfxfer.data.Examples`; an array of images, with `labels`; or a `tf.data.Dataset` of
                images and labels, such as that of `keras.utils.image_dataset_from_directory`.
            labels: labels of the images, where `data` is an array (see `tfxfer.data.from_arrays`).
            recipe: "frozen", "partial", "full", or the path of a recipe of your own.
            classes: the name of each label, where `data` is an array or a `tf.data.Dataset`.
            options: options of the recipe, such as epochs=10.

        Returns:
            the same object.

        Raises:
            TfxferError: the data or the network can't be used.
        """
        function = find(recipe)
        examples = as_data(data, labels, classes, seed=self.settings.get("seed", 0))
        temporary = tempfile.TemporaryDirectory(prefix="tfxfer-", ignore_cleanup_errors=True)
        run = Run(Path(temporary.name) / Path(recipe).stem, **self.settings)
        chosen = {"head": self.head} if self.head != "auto" else {}
        made = describe_call("tfxfer.Transfer", [repr(fspath(self.backbone))], self.settings)
        fitted = describe_call(".fit", ["data"], {"recipe": recipe, **chosen, **options})
        run.call = f"import tfxfer\n\n{made}{fitted}"
        function(run, data=examples, backbone=fspath(self.backbone), **chosen, **options)
        self._run, self._temporary = open_run(run.folder), temporary
        self.__dict__.pop("model", None)
        return self

    @property
    def run(self) -> Finished:
        """The run's folder, with the model, its report and its figures.

        Raises:
            RunError: `fit` was not called yet.
        """
        if self._run is None:
            raise RunError(
                "this Transfer is not fitted. Call fit(data) first, or open a run with "
                "tfxfer.load(folder)."
            )
        return self._run

    @cached_property
    def model(self) -> keras.Model:
        """The Keras model, from pixels in the network's range to calibrated logits [B, C]."""
        return serving.load_model(self.run.path("model.keras"), self._trusts())

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the model's outputs."""
        return self.run.classes()

    def predict(self, photos: Any, **options: Any) -> list[Prediction]:
        """Return the class of each photo, and its probability.

        Args:
            photos: paths of files and folders, or one of them; or an array of images as in `fit`.
            options: see `tfxfer.serving.predict`, such as top_k=3, sets=0.9 or unknown=True.
        """
        options = {"trust": self._trusts(), **options}
        if isinstance(photos, str | PathLike):
            photos = [photos]
        if isinstance(photos, list | tuple) and all(
            isinstance(one, str | PathLike) for one in photos
        ):
            return list(serving.predict(self.run.folder, photos, **options))
        read, count = as_files(photos)
        contents = {str(i): read(i) for i in range(count)}
        return list(serving.predict_contents(self.run.folder, contents, **options))

    def evaluate(
        self, data: Any, labels: Any = None, *, classes: Sequence[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Return the figures on labelled photos; only on their test part, if they have one.

        Args:
            data, labels, classes: as for `fit`. Arrays have no parts: all their images are judged.
            options: see `tfxfer.serving.judge`.
        """
        if labels is not None:
            names = self.classes if classes is None else classes
            data = find_in_arrays(data, labels, classes=names)
        else:
            data = as_data(data, None, classes, seed=0)
        return serving.evaluate(self.run.folder, data, **{"trust": self._trusts(), **options})

    def report(self) -> Path:
        """Return the path of the report, a page with pictures."""
        return self.run.path("report.html")

    def save(self, folder: str | PathLike[str]) -> Path:
        """Copy the run to a new or empty folder; all commands of tfxfer work on it.

        Raises:
            RunError: the folder is not empty, or can't be written.
        """
        self._run = self.run.copy_to(folder)
        report.write_again(folder)
        return self._run.folder

    def export(
        self,
        to: str | PathLike[str],
        *,
        format: Literal["savedmodel", "litert", "reusable"] = "savedmodel",
        **options: Any,
    ) -> Path:
        """Write the model for other programs; see `tfxfer export`.

        Args:
            to: folder that gets a numbered folder for each version.
            options: see `tfxfer.serving.export`, `export_litert` and `export_reusable`.

        Returns:
            the folder of the version.
        """
        if format not in EXPORTS:
            raise ValueError(f"Expected format of {', '.join(EXPORTS)}. Received: {format=}")
        return EXPORTS[format](self.run.folder, to, **{"trust": self._trusts(), **options})

    def _trusts(self) -> bool:
        return bool(self.settings.get("trust", False))

    def _repr_html_(self) -> str:
        """Return the head of the report, for notebooks."""
        return repr(self) if self._run is None else report.make_head(self._run.folder)

    def __repr__(self) -> str:
        state = "not fitted" if self._run is None else f"fitted, in {self._run.folder}"
        return f"Transfer({fspath(self.backbone)!r}, {state})"


def load(folder: str | PathLike[str], *, trust: bool = False) -> Transfer:
    """Open the folder of a finished run.

    Args:
        trust: also load a graph that can read files, run code or use the internet.

    Raises:
        RunError: there is no finished run, or its files were changed.
    """
    run = open_run(folder)
    backbone = run.setting("backbone", lambda value: isinstance(value, str), "a network")
    transfer = Transfer(backbone, **({"trust": True} if trust else {}))
    transfer._run = run
    return transfer


def as_data(
    data: Any, labels: Any, classes: Sequence[str] | None, *, seed: int
) -> str | PathLike[str] | Examples:
    """Return what a recipe takes as data."""
    if labels is not None:
        return from_arrays(data, labels, classes=classes, seed=seed)
    if hasattr(data, "element_spec"):
        return from_dataset(data, classes=classes, seed=seed)
    if isinstance(data, str | PathLike | Examples):
        return data
    raise ValueError(
        "Expected a folder or another source of photos, Examples, a tf.data.Dataset, or an array "
        f"with its labels. Received: {type(data).__name__} and labels=None"
    )
