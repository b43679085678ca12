"""Fine-tuning: the network is trained, and the frozen model is kept unless that clearly helps.

checkpoint   the state of a training on disk
training     one training with `fit`, which can be killed and goes on with the same result
task         what is trained: from pixels, or from activations
augmentation which augmentations leave the labels alone
activations  the output of the frozen stages, computed once
guard        which examples judge which model, and the verdict
setting      what is trained, how fast, and on which examples
picking      which stages train and how fast, and how long that takes
answers      the tuned model alone, or its mean with the frozen one
competition  the whole comparison of the frozen with the tuned model
"""

from tfxfer.tuning.activations import (
    depths_before_all,
    depths_of,
    enough_epochs,
    last_stages,
    stages_of,
    views_are_used,
)
from tfxfer.tuning.augmentation import harmless
from tfxfer.tuning.competition import Competition, compete
from tfxfer.tuning.guard import Plan, Verdict, plan
from tfxfer.tuning.setting import epochs_for
from tfxfer.tuning.task import Task, from_activations, from_pixels
from tfxfer.tuning.training import HeldOut, Trained, train

__all__ = [
    "Competition",
    "HeldOut",
    "Plan",
    "Task",
    "Trained",
    "Verdict",
    "compete",
    "depths_before_all",
    "depths_of",
    "enough_epochs",
    "epochs_for",
    "from_activations",
    "from_pixels",
    "harmless",
    "last_stages",
    "plan",
    "stages_of",
    "train",
    "views_are_used",
]
