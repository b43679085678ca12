"""The front door in Python: fit a model to examples, use it, and keep it as a run's folder."""

import html
import inspect
import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import keras
import numpy as np

from tfxfer import report, serving
from tfxfer.data import Examples, from_arrays, from_dataset
from tfxfer.data.arrays import as_files, find_in_arrays, find_in_datasets
from tfxfer.errors import RunError
from tfxfer.recipe import find
from tfxfer.run import Common, Finished, Run, describe_call, open_run
from tfxfer.steps import TRAINED_HEADS

LOG = logging.getLogger(__name__)

EXPORTS: dict[str, Callable[..., Path]] = {
    "savedmodel": serving.export,
    "litert": serving.export_litert,
    "reusable": serving.export_reusable,
}


class Transfer:
    """A pretrained network that becomes a classifier of your photos or texts.

    `fit` does what `tfxfer run` does. Its results stay in a temporary folder, until `save` copies
    them to a folder of yours.

    The temporary folder lives as long as this object or its `run`.

    Args:
        backbone: name, folder, archive or URL of a pretrained network, as for `--backbone`; or a
            Keras model (see `tfxfer.Backbone`). By default the recipe's own: efficientnet-lite0 for
            photos, minilm for texts.
        head: name of a head, as for `--head`; or, for the recipe frozen, a Keras layer from
            features [B, F] to logits [B, C], or a function from the number of classes to such a
            layer. A layer of a class of your own must be registered with Keras
            (`keras.saving.register_keras_serializable`), so that the model can be loaded again.
        settings: the options that every recipe has, such as seed=1 (see `tfxfer.Run`).

    Example::

        model = tfxfer.Transfer("efficientnet-lite0").fit("photos/")
        model.predict(["new.jpg"])[0].predicted
        model.save("cats-and-dogs")
    """

    def __init__(
        self,
        backbone: str | PathLike[str] | keras.Model | None = None,
        *,
        head: str | keras.layers.Layer | Callable[[int], keras.layers.Layer] = "auto",
        **settings: Any,
    ):
        Common(**settings)  # an option that does not exist is an error here, and not in `fit`
        self.backbone: str | keras.Model | None = backbone
        if isinstance(backbone, str | PathLike):
            self.backbone = fspath(backbone)
        self.head, self.settings = head, settings
        self._run: Finished | None = None
        self._examples: Examples | None = None
        # What labels that are numbers mean; None where each stands for itself.
        self._named: Sequence[str] | None = None

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
                `tfxfer.data.Examples`; an array of images (or a list of Pillow images) or a list
                of texts, with `labels`; or a
                `tf.data.Dataset` of images or texts with labels, such as that of
                `keras.utils.image_dataset_from_directory`.
            labels: labels, where `data` is an array or a list (see `tfxfer.data.from_arrays`).
            recipe: "frozen", "partial", "full", or the path of a recipe of your own.
            classes: the name of each label, where `data` is an array or a `tf.data.Dataset`.
            options: options of the recipe, such as epochs=10.

        Returns:
            the same object.

        Raises:
            TfxferError: the data or the network can't be used.
        """
        function = find(recipe)
        check_head(function, self.head)
        how = {name: one for name, one in self.settings.items() if name in ("seed", "task")}
        given = as_data(data, labels, classes, how)
        folder = Path(tempfile.mkdtemp(prefix="tfxfer-"))
        try:
            run = Run(folder / Path(recipe).stem, **self.settings)
            chosen = {"head": self.head} if self.head != "auto" else {}
            made = describe_call("tfxfer.Transfer", self._named_backbone(), self.settings)
            fitted = describe_call(".fit", ["data"], {"recipe": recipe, **chosen, **options})
            run.call = f"import tfxfer\n\n{made}{fitted}"
            takes_backbone = "backbone" in inspect.signature(function).parameters
            if takes_backbone and self.backbone is not None:
                chosen["backbone"] = self.backbone
            function(run, data=given, **chosen, **options)
            self._open(open_run(run.folder), given)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(self.run, shutil.rmtree, folder, ignore_errors=True)
        numbered = labels is not None or hasattr(data, "element_spec")
        names = classes if classes is not None else getattr(data, "class_names", None)
        self._named = names if numbered else self.classes
        return self

    def _open(self, run: Finished, examples: Any) -> None:
        """Use a finished run.

        Args:
            examples: the run's data, which are kept where only this program has them.
        """
        self._run, self._examples = run, examples if isinstance(examples, Examples) else None
        self.__dict__.pop("model", None)

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

    def predict(self, data: Any, **options: Any) -> list[Any]:
        """Return a `tfxfer.serving.Prediction` for each photo: its class and the probability.

        Where answers are no classes, it is a `tfxfer.serving.Answer`.

        Args:
            data: paths of files and folders, or one of them; or an array of images as in `fit`. For
                texts, strings are the texts themselves; a path is a `pathlib.Path`, also of a .csv
                table of texts.
            options: see `tfxfer.serving.predict`, such as top_k=3, sets=0.9 or unknown=True.
        """
        options = {"trust": self._trusts(), **options}
        kind = self.run.kind()
        paths = PathLike if kind.CELLS else str | PathLike
        if isinstance(data, str | PathLike):
            data = [data]
        if isinstance(data, list | tuple) and all(isinstance(one, paths) for one in data):
            return list(serving.predict(self.run.folder, data, **options))
        if np.ndim(data) == 3 and np.shape(data)[-1] in (3, 4):
            raise ValueError(
                "Expected an array of several images. Received: the shape of one image, "
                f"{np.shape(data)}. Give a list of images, or image[None] of an array."
            )
        read, count = as_files(data, kind)
        files = [str(i) for i in range(count)]
        read, said = kind.read_together(read, files)
        for note in said:
            LOG.warning(note)
        contents = {file: read(i) for i, file in enumerate(files)}
        return list(serving.predict_contents(self.run.folder, contents, **options))

    def evaluate(
        self, data: Any, labels: Any = None, *, classes: Sequence[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Return the figures on labelled photos; only on their test part, if they have one.

        Args:
            data, labels, classes: as for `fit`. Of an array or a `tf.data.Dataset`, all images are
                judged. Their labels mean what they meant in `fit`.
            options: see `tfxfer.serving.judge`.
        """
        names, task = self._named if classes is None else classes, self.run.task()
        if labels is not None:
            data = find_in_arrays(data, labels, classes=names, task=task)
        elif hasattr(data, "element_spec"):
            data = find_in_datasets({"test": data}, classes=names, task=task)
        options = {"trust": self._trusts(), **options}
        return serving.evaluate(self.run.folder, data, **options)

    def report(self) -> Path:
        """Return the path of the report, a page with pictures."""
        return self.run.path("report.html")

    def save(self, folder: str | PathLike[str]) -> Path:
        """Copy the run to a new or empty folder; all commands of tfxfer work on it.

        Raises:
            RunError: the folder is not empty, or can't be written.
        """
        self._open(self.run.copy_to(folder), self._examples)
        try:
            report.write_again(self.run.folder)
        except RunError as error:  # the report is made from the other files, so nothing is lost
            LOG.warning("There is no report: %s", error)
        return self.run.folder

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
        options = {"trust": self._trusts(), **options}
        if format == "litert" and self._examples is not None:
            options = {"data": self._examples, **options}
        return EXPORTS[format](self.run.folder, to, **options)

    def _trusts(self) -> bool:
        return bool(self.settings.get("trust", False))

    def _repr_html_(self) -> str:
        """Return the head of the report, for notebooks."""
        if self._run is None:
            return html.escape(repr(self))
        return report.make_head(self._run.folder)

    def __repr__(self) -> str:
        state = "not fitted" if self._run is None else f"fitted, in {self._run.folder}"
        return f"Transfer({', '.join([*self._named_backbone(), state])})"

    def _named_backbone(self) -> list[str]:
        """Return the backbone as an argument, if it was given; of a Keras model only its name."""
        if self.backbone is None:
            return []
        return [
            self.backbone.name if isinstance(self.backbone, keras.Model) else repr(self.backbone)
        ]


def load(folder: str | PathLike[str], *, trust: bool = False) -> Transfer:
    """Open the folder of a finished run.

    Args:
        trust: also load a graph that can read files, run code or use the internet.

    Raises:
        RunError: there is no finished run, or its files were changed.
    """
    run = open_run(folder)
    settings = run.settings()
    # A recipe of a user's own need not have this option.
    named = settings.get("backbone", {"value": "a network of its recipe"})
    backbone = settings.get("chosen_backbone", named)["value"]
    transfer = Transfer(str(backbone), **({"trust": True} if trust else {}))
    transfer._open(run, None)
    transfer._named = transfer.classes
    return transfer


def check_head(function: Callable, head: Any) -> None:
    """Refuse a head that a recipe can't use, before anything is computed.

    Raises:
        ValueError: says which heads it can use.
    """
    hint = get_type_hints(function).get("head")
    names = get_args(hint)
    allowed = head in names if isinstance(head, str) else set(TRAINED_HEADS) <= set(names)
    if names and not allowed:
        raise ValueError(
            f"Expected head of {', '.join(names)} for this recipe. Received: head={head!r}"
        )


def as_data(
    data: Any, labels: Any, classes: Sequence[str] | None, how: dict[str, Any]
) -> str | PathLike[str] | Examples:
    """Return what a recipe takes as data.

    Args:
        how: seed and task, where they were given.
    """
    if labels is not None:
        return from_arrays(data, labels, classes=classes, **how)
    if hasattr(data, "element_spec"):
        return from_dataset(data, classes=classes, **how)
    if isinstance(data, str | PathLike | Examples):
        return data
    raise ValueError(
        "Expected a folder or another source of data, Examples, a tf.data.Dataset, or an array "
        f"with its labels. Received: {type(data).__name__} and labels=None"
    )
