"""GradualUnfreeze: one more stage from the top down, each time with a fresh optimizer.

All of it happens within one `fit`.
"""

import keras
import numpy as np
import pytest

from tfxfer.backbone import Backbone
from tfxfer.tuning.gradual import GradualUnfreeze

X = np.random.default_rng(0).random((8, 32, 32, 3), dtype=np.float32)
Y = np.arange(8) % 2


@pytest.mark.long
def test_one_more_stage_moves_after_every_other_epoch(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel, trainable=False, batch_norm="inference")
    model = keras.Sequential([keras.Input((32, 32, 3)), backbone, keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    made, moving = [], []

    def optimizer():
        made.append(keras.optimizers.SGD(0.1, momentum=0.9))
        return made[-1]

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.before = [v.numpy() for v in backbone._own]

        def on_epoch_end(self, epoch, logs=None):
            moved = {
                i
                for i, v in enumerate(backbone._own)
                if not np.array_equal(self.before[i], v.numpy())
            }
            moving.append([stage.name for stage in backbone.stages if moved & set(stage.weights)])
            trainable = {i for i, v in enumerate(backbone._own) if v.trainable}
            assert moved == trainable

    model.fit(
        X,
        Y,
        epochs=6,
        verbose=0,
        callbacks=[GradualUnfreeze(backbone, optimizer=optimizer, every=2, stages=2), Watch()],
    )
    assert moving == [["block2"]] * 2 + [["block1", "block2"]] * 4 and len(made) == 2
    assert model.optimizer is made[-1] and int(made[-1].iterations) == 4


@pytest.mark.long
def test_a_saved_model_has_the_optimizer_that_trained_last(tiny_savedmodel, tmp_path):
    backbone = Backbone(tiny_savedmodel, trainable=False)
    model = keras.Sequential([keras.Input((32, 32, 3)), backbone, keras.layers.Dense(2)])
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    model.fit(
        X,
        Y,
        epochs=1,
        verbose=0,
        callbacks=[
            GradualUnfreeze(
                backbone, optimizer=lambda: keras.optimizers.SGD(1e-3, momentum=0.9), stages=1
            )
        ],
    )
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.SGD)
    for one, other in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_taps_have_no_statistics_that_could_move_in_the_last_step(tiny_savedmodel):
    with pytest.raises(
        ValueError, match='Expected a Backbone with batch_norm="inference", or fewer stages than 3'
    ):
        GradualUnfreeze(
            Backbone(tiny_savedmodel, trainable=False, taps=2), optimizer=keras.optimizers.SGD
        )


@pytest.mark.parametrize(("every", "stages"), [(0, 2), (1, 4), (1, 0)])
def test_wrong_numbers_are_refused(every, stages, tiny_savedmodel):
    with pytest.raises(
        ValueError,
        match=(
            f"Expected every >= 1 and 1 <= stages <= 3. Received: every={every}, stages={stages}"
        ),
    ):
        GradualUnfreeze(
            Backbone(tiny_savedmodel, trainable=False),
            optimizer=keras.optimizers.SGD,
            every=every,
            stages=stages,
        )
