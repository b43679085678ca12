"""Judge models: figures come from `tfxfer.tasks`, simpler models from `tfxfer.heads`.

baselines   simpler models to compare with
worth       whether the network is better than they are, in words
unknown     how far an example is from every class
doubt       how unsure a model is: sets, and a score for "none of these"

The names below need no TensorFlow: reports are written again without it.
"""

from tfxfer.evaluate.worth import beaten, called, pays, unmeasured
from tfxfer.tasks.figures import reliability, score, share, wilson
from tfxfer.tasks.sets import lowest, members, strangeness

__all__ = [
    "beaten",
    "called",
    "lowest",
    "members",
    "pays",
    "reliability",
    "score",
    "share",
    "strangeness",
    "unmeasured",
    "wilson",
]
