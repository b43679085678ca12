"""From labels and probabilities to figures. NumPy, and the heads of `tfxfer.probe`.

figures     accuracy and its kin, with intervals
baselines   what one would get without transfer, and whether it pays
sets        prediction sets
"""

from tfxfer.evaluate.baselines import NAMES, Baselines, baselines, beaten, pays
from tfxfer.evaluate.figures import reliability, score, share, wilson
from tfxfer.evaluate.sets import lowest, members, strangeness

__all__ = [
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
