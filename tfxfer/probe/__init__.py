"""Heads on cached features: fitted in closed form or by a convex descent and picked by cross-validation (`choose`), or trained by `fit` (`fit_head`).

folds       which examples are held out together, which stand for all
fitted      Fitted: an affine head; its temperature
averaged    Averaged: the mean of several heads
closed      gaussian, ridge, prototype
precision   the Gaussian's means and P, for those who ask how far an image is from every class
unknown     how far an example is from every class
logistic    linear
validate    choose: which head on which taps
train       fit_head: any Keras layer
"""

from tfxfer.probe.averaged import Averaged
from tfxfer.probe.closed import gaussian, prototype, ridge
from tfxfer.probe.fitted import Fitted, log_loss, temperature
from tfxfer.probe.logistic import linear
from tfxfer.probe.precision import precision
from tfxfer.probe.train import Trained, fit_head
from tfxfer.probe.unknown import Unknown, out_of_fold, unknown
from tfxfer.probe.validate import Candidate, Choice, choose, paired

__all__ = [
    "Averaged",
    "Candidate",
    "Choice",
    "Fitted",
    "Trained",
    "Unknown",
    "choose",
    "fit_head",
    "gaussian",
    "linear",
    "log_loss",
    "out_of_fold",
    "paired",
    "precision",
    "prototype",
    "ridge",
    "temperature",
    "unknown",
]
