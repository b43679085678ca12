"""Fine-tuning: the network is trained. The frozen model is kept unless the trained one is better.

gradual      a callback that unfreezes stage by stage
optimizers   learning rates by stage
checkpoint   the state of a training on disk
training     one training with `fit`, which can be killed and goes on with the same result
source       what is trained, and its batches
input_source, activation_source   the two kinds: from the examples, or from activations
augmentation which augmentations leave the labels alone
activations  the output of the frozen stages, computed once
guard        which examples judge which model, and the verdict
frozen       the frozen model that a tuned one is compared with, and the head to start from
setting      what is trained, how fast, and on which examples
picking      which stages train and how fast, and how long that takes
folds        train on the examples that do not judge, and then the final model
answers      the tuned model alone, or its mean with the frozen one
competition  the whole comparison of the frozen with the tuned model
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
