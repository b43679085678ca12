"""Fit heads on cached features.

`choose` fits heads in closed form or by minimising a convex loss, and picks one by
cross-validation. `fit_head` trains any Keras layer with `fit`.

layers      Keras layers from features to logits, and the join with a backbone
mirrors     whether the mean over an image and its mirror image predicts better
ranges      which range of pixel values a network expects, by trying
fitted      Fitted: an affine head, and its temperature
averaged    Averaged: the mean of several heads
closed      gaussian, ridge and prototype, fitted in closed form
precision   the Gaussian's class means and precision matrix, to tell how far an image is from them
logistic    linear: logistic regression
validate    choose: which head on which taps
train       fit_head: any Keras layer
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
