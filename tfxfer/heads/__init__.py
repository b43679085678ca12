"""Fit heads on cached features.

`choose` fits heads in closed form or by minimising a convex loss, and picks one by
cross-validation. `fit_head` trains any Keras layer with `fit`.

layers      Keras layers from features to logits, and the join with a backbone
mirrors     whether the mean over an image and its mirror image predicts better
ranges      which range of pixel values a network expects, by trying
fitted      Fitted: an affine head, and its temperature
averaged    Averaged: the mean of several heads
side_by_side  SideBySide: heads of several columns of labels
closed      gaussian, ridge and prototype, fitted in closed form
sums        the sums over examples from which these are computed
statistics  what is kept of the examples, so that a head can grow without them
growable    this and the head's calibration, in a file of the run
logistic    linear: logistic regression
validate    choose: which head on which taps
train       fit_head: any Keras layer
threads     several fits at once, each with one BLAS thread
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
