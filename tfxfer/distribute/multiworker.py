"""A Keras model that trains under `MultiWorkerMirroredStrategy`.

Keras 3's own `fit` fails there. This file can go when keras-team/keras #20585 is closed.
"""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfxfer")
class MultiWorkerModel(keras.Model):
    """A `keras.Model` that works over several workers and gives all examples the same weight.

    This holds for `fit`, `evaluate` and `predict`. Use it as `keras.Model`: make it from inputs and
    outputs, or subclass it, inside the strategy's scope. What differs from Keras 3:

    - the model is built from this worker's own values, not from those of all workers;
    - the metrics of a step have one more axis, since they are reduced along the first one;
    - a replica whose batch is smaller than those of the others counts less, so that the gradient is
      that of one process with the whole batch.

    Keras clips each replica's part of the gradient; an optimizer of `tfxfer.optimizers.layerwise`
    clips the whole one. The same model as an ordinary one is
    `keras.Model(model.inputs, model.outputs)`.

    Example::

        strategy = tfxfer.distribute.strategy("multiworker")
        pretrained = tfxfer.savedmodel.read("path/of/a/savedmodel")  # outside the scope
        with strategy.scope():
            inputs = keras.Input((224, 224, 3))
            features = tfxfer.Backbone(pretrained)(inputs)
            model = tfxfer.MultiWorkerModel(inputs, keras.layers.Dense(2)(features))
            model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    """

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Keras' loss; its gradient is weighted by this replica's share of the step's examples."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        replica = tf.distribute.get_replica_context()
        if not training or replica is None or replica.num_replicas_in_sync == 1:
            return loss
        mine = tf.cast(tf.shape(keras.tree.flatten(y_pred)[0])[0], loss.dtype)
        share = (
            mine
            * replica.num_replicas_in_sync
            / replica.all_reduce(tf.distribute.ReduceOp.SUM, mine)
        )
        return loss + (share - 1) * (loss - tf.stop_gradient(loss))

    def train_step(self, data):
        """Keras' step, with one more axis for its metrics."""
        return with_axis(super().train_step(data))

    def test_step(self, data):
        """Keras' step, with one more axis for its metrics."""
        return with_axis(super().test_step(data))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if iterator is not None and self._distribute_strategy is not None:
            for _, _, values in iterator:
                data_batch = keras.tree.map_structure(
                    lambda value: self.distribute_strategy.experimental_local_results(value)[0],
                    next(values),
                )
                break
        super()._maybe_symbolic_build(data_batch=data_batch)


def with_axis(figures):
    return {name: tf.expand_dims(value, 0) for name, value in figures.items()}
