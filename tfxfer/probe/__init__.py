"""Fit heads on cached features.

`choose` fits heads in closed form or by minimising a convex loss, and picks one by
cross-validation. `fit_head` trains any Keras layer with `fit`.

folds       which examples are held out together, and which ones represent all
fitted      Fitted: an affine head, and its temperature
averaged    Averaged: the mean of several heads
closed      gaussian, ridge and prototype, fitted in closed form
precision   the Gaussian's class means and precision matrix, to tell how far an image is from them
unknown     how far an example is from every class
logistic    linear: logistic regression
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
