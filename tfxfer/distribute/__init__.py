"""One device or many: which there are, and what several workers share.

devices      from options to a tf.distribute strategy
workers      what several workers, or several replicas in one process, share
multiworker  a Keras model that trains on several workers
dataservice  batches that a tf.data service computes
launch       several workers on this machine
preemption   SIGTERM, the notice that a machine is about to be taken away
rendezvous   ends a worker that waits in vain for the others
loopback     a network that only a group of processes sees
parcel       values as bytes, to send them to another worker
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
