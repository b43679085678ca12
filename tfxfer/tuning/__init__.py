"""Fine-tuning: the network is trained. The frozen model is kept unless the trained one is better.

gradual      a callback that unfreezes stage by stage
optimizers   learning rates by stage
checkpoint   the state of a training on disk
training     one training with `fit`; after a kill it can go on, with the same result
source       what is trained, and its batches
input_source, activation_source   the two kinds: from the examples, or from activations
augmentation which augmentations keep the labels right
activations  the output of the frozen stages, computed once
guard        which examples judge which model, and the verdict
frozen       the frozen model that a tuned one is compared with, and the head to start from
setting      what trains and how fast, how all trainings are run, and one model ready to train
picking      which stages train and how fast, and how long that takes
folds        train one model for each fold, and then the final model
answers      the tuned model, weights on the way to it, or its mean with the frozen one
competition  the whole comparison of the frozen with the tuned model
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
