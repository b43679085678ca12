"""Judge models: figures come from `tfxfer.tasks`, simpler models from `tfxfer.heads`.

baselines   simpler models to compare with, and whether transfer helps
unknown     how far an example is from every class
doubt       how unsure a model is: sets, and a score for "none of these"
"""

from tfxfer.evaluate.baselines import (
    BASELINE_EXAMPLES,
    Baselines,
    baselines,
    beaten,
    called,
    pays,
    sample_train,
)
from tfxfer.tasks.figures import reliability, score, share, wilson
from tfxfer.tasks.sets import lowest, members, strangeness

__all__ = [
    "BASELINE_EXAMPLES",
    "Baselines",
    "baselines",
    "beaten",
    "called",
    "lowest",
    "members",
    "pays",
    "reliability",
    "sample_train",
    "score",
    "share",
    "strangeness",
    "wilson",
]
