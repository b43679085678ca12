"""Compute figures from labels and probabilities, with NumPy and the heads of `tfxfer.heads`.

figures     accuracy and similar figures, with intervals
baselines   simpler models to compare with, and whether transfer helps
sets        prediction sets
unknown     how far an example is from every class
doubt       how unsure a model is: sets, and a score for "none of these"
"""

from tfxfer.evaluate.baselines import BASELINE_EXAMPLES, NAMES, Baselines, baselines, beaten, pays
from tfxfer.evaluate.figures import reliability, score, share, wilson
from tfxfer.evaluate.sets import lowest, members, strangeness

__all__ = [
    "BASELINE_EXAMPLES",
    "NAMES",
    "Baselines",
    "baselines",
    "beaten",
    "lowest",
    "members",
    "pays",
    "reliability",
    "score",
    "share",
    "strangeness",
    "wilson",
]
