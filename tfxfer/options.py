"""Options that several recipes have: their types, with the help that the command line shows."""

from typing import Annotated, Literal, TypeAlias

Data: TypeAlias = Annotated[
    str,
    "Your photos or texts: folder of class folders, .zip or .tar of one, .csv of path and label, "
    "tfds:NAME, or demo.",
]
Network: TypeAlias = Annotated[
    str,
    "Pretrained network: name (see tfxfer backbones), folder, archive or URL of a SavedModel, "
    ".keras file, or preset of KerasHub. auto: whichever suits your data (see tfxfer choose). For "
    "texts the default is minilm.",
]
FrozenHead: TypeAlias = Annotated[
    Literal["auto", "gaussian", "linear", "ridge", "prototype"],
    "Classifier of the frozen model; see tfxfer run frozen --help.",
]
Epochs: TypeAlias = Annotated[
    int | None,
    "Epochs of the final training; by default 6 to 20, more with fewer examples. If at most 5 "
    "stages train, twice as many (20 at most) are tried, and kept if they help.",
    range(1, 10**6),
]
LearningRate: TypeAlias = Annotated[
    float | None,
    "Highest learning rate of the last stage; the stages before it train more slowly. By default "
    "two rates are tried.",
    (0, 1e38),
]
TimeLimit: TypeAlias = Annotated[
    float | None,
    "Stop training after about this many minutes, at the end of an epoch.",
    (0, 10**6),
]
