"""Backbone: a SavedModel as an ordinary Keras layer."""

import dataclasses
import functools
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from loaded import python
from savedmodels import raw, save_reusable, tiny_network

from tfxfer import savedmodel
from tfxfer.backbone import Backbone
from tfxfer.distribute import parcel
from tfxfer.errors import DeniedOperationError, SavedModelError

X = np.random.default_rng(0).random((8, 32, 32, 3), dtype=np.float32)
Y = np.arange(8) % 2
HERE = (Path(__file__).parent, Path(__file__).parent.parent)
BFLOAT16 = {"rtol": 0.01, "atol": 2e-3}  # two of its steps, for answers of mixed precision
OLD = HERE[0] / "old" / "backbone-format-1.keras"  # written by 0.1.0, whose configs held the graphs


def classifier(backbone) -> keras.Model:
    model = keras.Sequential([keras.Input((32, 32, 3)), backbone, keras.layers.Dense(2)])
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def snapshot(layer) -> list[np.ndarray]:
    return [v.numpy().copy() for v in layer.variables]


def moved(before, layer) -> list[str]:
    return [
        v.path
        for old, v in zip(before, layer.variables, strict=True)
        if not np.array_equal(old, v.numpy())
    ]


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> str:
    """A network with other weights and another share of dropout than `tiny_savedmodel`."""
    folder = tmp_path_factory.mktemp("other") / "model"
    return save_reusable(tiny_network(seed=1, dropout=0.5), folder)


@pytest.fixture(scope="module")
def regularized(tmp_path_factory) -> tuple[str, float]:
    """A network with a regularization loss, and the value of that."""
    network = tiny_network(activation="relu")
    kernel = raw(network.trainable_variables)[0]
    losses = [lambda: tf.reduce_sum(kernel**2)]
    folder = save_reusable(network, tmp_path_factory.mktemp("regularized") / "m", losses=losses)
    return folder, float(tf.reduce_sum(kernel**2))


def test_a_frozen_backbone_does_not_move_in_fit(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel, trainable=False)
    model, before = classifier(backbone), snapshot(backbone)
    model.fit(X, Y, epochs=2, verbose=0)
    assert moved(before, backbone) == [] and len(model.trainable_variables) == 2


@pytest.mark.long
def test_a_whole_backbone_trains_weights_and_statistics(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel)
    model, before = classifier(backbone), snapshot(backbone)
    model.fit(X, Y, epochs=2, verbose=0)
    assert len(moved(before, backbone)) == len(backbone.variables)


def test_a_frozen_backbone_is_compiled_by_xla(tiny_savedmodel):
    model = classifier(Backbone(tiny_savedmodel, trainable=False))
    plain = model(X)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), jit_compile=True)
    assert model.jit_compile
    np.testing.assert_allclose(model.predict(X, verbose=0), plain, atol=1e-4)
    model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("stages", [1, "all"])
def test_xla_would_compile_what_trains_for_each_batch_so_it_is_left_out(tiny_savedmodel, stages):
    backbone = Backbone(tiny_savedmodel, trainable=False)
    backbone.unfreeze(stages)
    model = classifier(backbone)
    with pytest.warns(UserWarning, match="jit_compile=False"):
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), jit_compile=True)
    assert not model.jit_compile
    backbone.freeze()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), jit_compile=True)
    assert model.jit_compile


def test_a_partly_frozen_backbone_moves_its_last_stages_alone(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel)
    backbone.unfreeze(1)
    model, before = classifier(backbone), snapshot(backbone)
    model.fit(X, Y, verbose=0)
    inside = {i for i, v in enumerate(backbone._own) if v.trainable}
    assert inside < set(backbone.stages[-1].weights) and len(inside) == 5
    assert len(moved(before, backbone)) == 5


def test_batch_norm_inference_trains_weights_but_moves_no_statistics(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel, batch_norm="inference")
    model, before = classifier(backbone), snapshot(backbone)
    model.fit(X, Y, verbose=0)
    assert not [path for path in moved(before, backbone) if "moving" in path or "seed" in path]


def test_a_plan_that_changes_after_fit_warns(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel, batch_norm="inference")
    model = classifier(backbone)
    model.fit(X, Y, verbose=0)
    with pytest.warns(
        UserWarning,
        match=r"what trains in this Backbone has changed.*call compile\(\) with a new optimizer",
    ):
        backbone.unfreeze(1)
    backbone.unfreeze(2)  # gives no second warning
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = snapshot(backbone)
    model.fit(X, Y, verbose=0)
    backbone.unfreeze(2)  # nothing changes
    assert len(moved(before, backbone)) == len(backbone.trainable_variables)


def test_a_frozen_part_of_a_model_survives_model_trainable(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel)
    backbone.unfreeze("block2")
    model = classifier(backbone)
    model.trainable = False
    assert not model.trainable_variables
    model.trainable = True
    assert len(backbone.trainable_variables) == 5


def test_functional_and_subclassed_models_take_it(tiny_savedmodel):
    image = keras.Input((32, 32, 3))
    functional = keras.Model(
        image, keras.layers.Dense(2)(Backbone(tiny_savedmodel, trainable=False)(image))
    )
    assert functional.predict(X, verbose=0).shape == (8, 2)

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = (
                Backbone(tiny_savedmodel, trainable=False),
                keras.layers.Dense(2),
            )

        def call(self, x, training=False):
            return self.head(self.backbone(x, training=training))

    model = Subclassed()
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((8, 2)), verbose=0)
    assert len(model.trainable_variables) == 2


@pytest.mark.parametrize(
    "options", [{"trainable": "block1"}, {"trainable": 2}, {"taps": "2"}, {"taps": True}]
)
def test_an_argument_of_another_kind_is_refused(tiny_savedmodel, options):
    with pytest.raises(ValueError, match=repr(*options.values())):
        Backbone(tiny_savedmodel, **options)


@pytest.mark.long
def test_a_keras_file_reloads_where_the_folder_is_gone(tiny_savedmodel, tmp_path):
    folder = shutil.copytree(tiny_savedmodel, tmp_path / "gone")
    model = classifier(Backbone(folder))
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "m.keras")
    shutil.rmtree(folder)
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    again.fit(X, Y, verbose=0)


def in_a_new_process(code: str) -> str:
    """Return what a process prints that has imported nothing yet."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def saved(tiny_savedmodel, tmp_path_factory) -> tuple[str, np.ndarray]:
    """The file of a model, and its answers for ones."""
    model = classifier(Backbone(tiny_savedmodel, trainable=False))
    path = str(tmp_path_factory.mktemp("saved") / "m.keras")
    model.save(path)
    return path, model.predict(np.ones((2, 32, 32, 3)), verbose=0)


@pytest.fixture(scope="module")
def keras_first(saved) -> tuple[str, str]:
    """What a process prints that loads a file with Keras alone, and then also with tfxfer."""
    code = f"""
import keras, numpy as np
try:
    keras.models.load_model({saved[0]!r})
except Exception as error:
    print(error)
print("---")
import tfxfer
print(keras.models.load_model({saved[0]!r}).predict(np.ones((2, 32, 32, 3)), verbose=0).tolist())
"""
    alone, _, both = in_a_new_process(code).partition("---")
    return alone, both


@pytest.fixture(scope="module")
def tfxfer_first(saved) -> tuple[str, str]:
    """What a process prints that loads a file with tfxfer and Keras; there is no error."""
    code = f"""
import tfxfer
import keras, numpy as np
print(keras.models.load_model({saved[0]!r}).predict(np.ones((2, 32, 32, 3)), verbose=0).tolist())
"""
    return "", in_a_new_process(code)


@pytest.mark.long
@pytest.mark.parametrize("order", ["keras_first", "tfxfer_first"])
def test_a_keras_file_loads_in_a_fresh_process_in_either_import_order(order, saved, request):
    _, printed = request.getfixturevalue(order)
    np.testing.assert_allclose(json.loads(printed.splitlines()[-1]), saved[1], atol=1e-5)


@pytest.mark.long
def test_without_tfxfer_the_error_names_the_layer_and_is_short(keras_first):
    printed, _ = keras_first
    assert "Could not locate class 'Backbone'" in printed and len(printed) < 5000


def test_export_answers_as_the_model_does(tiny_savedmodel, tmp_path):
    model = classifier(Backbone(tiny_savedmodel))
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(X), model.predict(X, verbose=0), atol=1e-6)


def test_a_plan_survives_saving_and_cloning(tiny_savedmodel, tmp_path):
    backbone = Backbone(tiny_savedmodel)
    backbone.unfreeze(2)
    model = classifier(backbone)
    model.save(tmp_path / "m.keras")
    paths = [v.name for v in backbone.trainable_variables]
    assert [
        v.name for v in keras.models.load_model(tmp_path / "m.keras").layers[0].trainable_variables
    ] == paths
    assert [v.name for v in keras.models.clone_model(model).layers[0].trainable_variables] == paths


def test_taps_are_the_means_and_maxima_of_the_last_stages(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel, trainable=False, taps=2)
    features = backbone(X).numpy()
    assert backbone.tap_widths == (16, 32) or backbone.tap_widths == (24, 32)
    assert features.shape == (8, sum(backbone.tap_widths))
    plain = Backbone(tiny_savedmodel, trainable=False)(X)
    np.testing.assert_allclose(features[:, -32:-16], plain, atol=1e-6)
    assert (features[:, -16:] >= features[:, -32:-16] - 1e-6).all()


@pytest.mark.parametrize(("stages", "taps"), [(1, None), (1, 3), (2, 3), (2, 1)])
def test_front_and_rest_are_the_whole_network(stages, taps, tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel, trainable=False)
    rows = backbone.front(stages, taps)(X)
    prefix, rest = backbone.cut(stages, taps)
    assert rows.shape == (8, prefix.width)
    width = int(np.prod(rest.entry_shape))
    after = rest(np.reshape(rows[:, :width], (8, *rest.entry_shape)))
    found = np.concatenate([rows[:, width:], after], 1)
    whole = backbone.tapped(taps)(X)
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_the_constant_graph_gives_the_same_features(tiny_savedmodel):
    prefix = Backbone(tiny_savedmodel, trainable=False).prefix(taps=2)
    call = tf.compat.v1.wrap_function(
        lambda x: tf.graph_util.import_graph_def(
            prefix.graph, input_map={prefix.input: x}, return_elements=[prefix.output]
        )[0],
        [tf.TensorSpec((None, 32, 32, 3))],
    )
    np.testing.assert_allclose(
        call(tf.constant(X)), Backbone(tiny_savedmodel, trainable=False, taps=2)(X), atol=1e-6
    )
    assert prefix.width == sum(prefix.tap_widths)


def test_the_fingerprint_changes_with_the_weights_and_only_with_them(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel)
    before = backbone.fingerprint
    assert Backbone(tiny_savedmodel, trainable=False).fingerprint == before
    backbone.trainable_variables[0].assign_add(backbone.trainable_variables[0] * 0.0 + 1.0)
    assert backbone.fingerprint != before


@pytest.mark.long
def test_regularization_counts_while_trainable(regularized):
    folder, loss = regularized
    backbone = Backbone(folder)
    backbone(X)
    assert float(backbone.losses[0]) == pytest.approx(loss, rel=1e-5)
    backbone.trainable = False
    backbone(X)
    assert backbone.losses == []


@pytest.mark.long
def test_mirrored_strategy_trains_it(tiny_savedmodel):
    pretrained = Backbone(tiny_savedmodel).pretrained
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = classifier(Backbone(pretrained, batch_norm="inference"))
    alone = classifier(Backbone(pretrained, batch_norm="inference"))
    alone.set_weights(model.get_weights())
    history = model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    expected = alone.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], atol=1e-4)


def test_mixed_precision_leaves_the_graph_in_float32(tiny_savedmodel):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        assert Backbone(tiny_savedmodel, trainable=False)(X).dtype == tf.float32
    finally:
        keras.mixed_precision.set_global_policy("float32")


@pytest.mark.long
def test_a_file_with_a_changed_graph_is_refused(tiny_savedmodel, tmp_path):
    path = tmp_path / "m.keras"
    classifier(Backbone(tiny_savedmodel)).save(path)
    rewrite_graphs(path, lambda values: values | {"features": 17})
    assert "graph is not the one that was saved" in error_elsewhere(path)


@pytest.mark.long
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda config: config | {"width": 17},
        lambda config: config | {"outline": savedmodel.outline_of(replaced(config, features=17))},
        lambda config: config | {"outline": "eNpj"},
    ],
)
def test_a_file_with_a_changed_config_is_refused(change, there, tiny_savedmodel, tmp_path):
    path = tmp_path / "m.keras"
    model = keras.Sequential([keras.Input((32, 32, 3)), Backbone(tiny_savedmodel)])
    model.save(path)
    rewrite(path, change)
    expected = (
        r"config is not the one that was saved|outline of a network is damaged|file's graph is"
    )
    if there:
        with pytest.raises((SavedModelError, TypeError, ValueError), match=expected):
            keras.models.load_model(path)
    else:
        assert re.search(expected, error_elsewhere(path))


def replaced(config, **fields) -> savedmodel.Pretrained:
    return dataclasses.replace(savedmodel.outlined(config["outline"]), **fields)


def elsewhere(code: str) -> str:
    """Return what a fresh process prints, which has read no network."""
    done = subprocess.run(
        [python(), "-c", "import keras, numpy as np, tfxfer\n" + code],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def error_elsewhere(path) -> str:
    """The error with which a fresh process refuses a file."""
    return elsewhere(
        f"try: keras.models.load_model({str(path)!r})\nexcept Exception as error: print(error)"
    )


@pytest.mark.long
def test_a_file_whose_graph_reads_files_is_refused_in_safe_mode(tmp_path):
    root = tf.train.Checkpoint()
    (tmp_path / "secret").write_bytes(b"1.0")
    secret = str(tmp_path / "secret")
    root.__call__ = tf.function(
        lambda x: tf.reduce_mean(x, [1, 2]) * tf.strings.to_number(tf.io.read_file(secret)),
        input_signature=[tf.TensorSpec((None, 32, 32, 3))],
    )
    tf.saved_model.save(root, str(tmp_path / "m"))
    model = keras.Sequential(
        [keras.Input((32, 32, 3)), Backbone(tmp_path / "m", trainable=False, trust=True)]
    )
    model.save(tmp_path / "m.keras")
    with pytest.raises((DeniedOperationError, TypeError), match="ReadFile"):
        keras.models.load_model(tmp_path / "m.keras")
    assert "ReadFile" in error_elsewhere(tmp_path / "m.keras")
    trusting = f"keras.models.load_model({str(tmp_path / 'm.keras')!r}, safe_mode=False)"
    assert "(1, 3)" in elsewhere(f"print({trusting}(np.ones((1, 32, 32, 3))).shape)")
    assert keras.models.load_model(tmp_path / "m.keras", safe_mode=False).predict(
        X, verbose=0
    ).shape == (8, 3)


def members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def config_of(parts: dict[str, bytes]):
    """The model's config, and that of its first Backbone, which is a part of it."""
    config = json.loads(parts["config.json"])
    layers = config["config"]["layers"]
    return config, next(layer for layer in layers if layer["class_name"] == "Backbone")


def rewrite(path, change) -> None:
    """Change the config of a file's Backbone."""
    parts = members(path)
    config, layer = config_of(parts)
    layer["config"] = change(layer["config"])
    pack(path, parts | {"config.json": json.dumps(config).encode()})


def rewrite_graphs(path, change) -> None:
    """Change what lies beside the weights of a file's Backbone."""
    parts = members(path)
    weights = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        (place,) = [name for name in names_in(file) if name.endswith(savedmodel.GRAPHS)]
        values = parcel.unpack(zlib.decompress(file[place][()].tobytes()))
        del file[place]
        file[place] = np.frombuffer(zlib.compress(parcel.pack(change(values))), np.uint8)
    pack(path, parts | {"model.weights.h5": weights.getvalue()})


def names_in(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visit(found.append)
    return found


def test_a_config_is_short_and_holds_no_graph(tiny_savedmodel):
    config = Backbone(tiny_savedmodel).get_config()
    assert len(json.dumps(config)) < 1500
    assert Backbone.from_config(config).get_config() == config


def test_a_file_that_tfxfer_0_1_wrote_is_loaded_and_saved_anew(tmp_path):
    one = np.linspace(0, 1, 32 * 32 * 3, dtype="float32").reshape(1, 32, 32, 3)
    # Of one image alone, oneDNN's last bits depend on what the process computed before.
    x = np.concatenate([one, one])
    model = keras.models.load_model(OLD)
    # What tfxfer 0.1 answered.
    expected = [0.07610884308815002, 0.02319527044892311]
    np.testing.assert_allclose(model(x), [expected, expected], atol=1e-5)
    model.save(tmp_path / "m.keras")
    assert config_of(members(tmp_path / "m.keras"))[1]["config"].keys() == (
        Backbone.from_config(model.layers[0].get_config()).get_config().keys()
    )
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again(x), model(x))


@pytest.mark.long
def test_weights_and_graphs_can_be_loaded_into_a_model_from_a_config(tiny_savedmodel, tmp_path):
    model = classifier(Backbone(tiny_savedmodel))
    model.layers[0].unfreeze(1)
    (tmp_path / "m.json").write_text(model.to_json())
    model.save_weights(tmp_path / "m.weights.h5")
    model.save(tmp_path / "m.keras")
    for name in ("m.weights.h5", "m.keras"):
        code = f"""
model = keras.models.model_from_json(open({str(tmp_path / "m.json")!r}).read())
layer = model.layers[0]
assert layer.compute_output_shape((None, 32, 32, 3)) == (None, 16)
assert len(layer.trainable_variables) == {len(model.layers[0].trainable_variables)}
clone = keras.models.clone_model(model)
for call in (lambda: layer(np.ones((1, 32, 32, 3))), lambda: layer.fingerprint, layer.prefix):
    try:
        call()
    except tfxfer.errors.SavedModelError as error:
        assert "has no graph yet" in str(error) and ".keras" in str(error), error
    else:
        raise AssertionError(call)
try:
    model.save({str(tmp_path / "none.keras")!r})
except tfxfer.errors.SavedModelError as error:
    assert "has no graph yet" in str(error)
model.load_weights({str(tmp_path / name)!r})
print(model(np.ones((2, 32, 32, 3), "float32")).numpy().tolist())
"""
        answer = json.loads(elsewhere(code).splitlines()[-1])
        np.testing.assert_allclose(answer, model(np.ones((2, 32, 32, 3))), atol=1e-5)


@pytest.mark.long
def test_weights_of_another_network_are_told(tiny_savedmodel, other, tmp_path):
    (tmp_path / "m.json").write_text(classifier(Backbone(tiny_savedmodel)).to_json())
    classifier(Backbone(other)).save_weights(tmp_path / "m.weights.h5")
    code = f"""
model = keras.models.model_from_json(open({str(tmp_path / "m.json")!r}).read())
try:
    model.load_weights({str(tmp_path / "m.weights.h5")!r})
except Exception as error:
    print(error)
"""
    assert "is of another network" in elsewhere(code)


class Wrapper(keras.Model):
    """Asks its layers for shapes by calling them, as subclassed models do."""

    def __init__(self, backbone, **options):
        super().__init__(**options)
        self.backbone, self.head = backbone, keras.layers.Dense(2)

    def call(self, x, training=False):
        return self.head(self.backbone(x, training=training))

    def get_config(self):
        return {"backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["backbone"]))


def several(tiny_savedmodel, other) -> keras.Model:
    """Two Backbones of one network with other weights, one of another, one that is used twice."""
    image = keras.Input((32, 32, 3))
    first = Backbone(tiny_savedmodel, name="first")
    second = Backbone(tiny_savedmodel, name="second", taps=2, trainable=False)
    first.set_weights([weight + 1 for weight in first.get_weights()])
    parts = [first(image), second(image), first(keras.ops.flip(image, 2))]
    inner = keras.Sequential([keras.Input((32, 32, 3)), Backbone(other, precision="mixed")])
    return keras.Model(image, keras.layers.Concatenate()([*parts, inner(image)]))


@pytest.fixture(scope="module")
def made(tiny_savedmodel, other):
    """Makes each kind of model once; returns it with examples and its answers for these."""

    @functools.cache
    def make(kind: str) -> tuple[keras.Model, np.ndarray, np.ndarray]:
        shape = (32, 32, 3)
        if kind == "several":
            model = several(tiny_savedmodel, other)
        elif kind == "subclassed":
            model = Wrapper(Backbone(tiny_savedmodel))
            model(X)
        elif kind == "distributed":
            frames = keras.layers.TimeDistributed(Backbone(tiny_savedmodel))
            shape = (2, *shape)
            model = keras.Sequential([keras.Input(shape), frames])
        else:
            _, rest = Backbone(tiny_savedmodel).cut(1)
            shape = rest.entry_shape
            model = keras.Sequential([keras.Input(shape), rest, keras.layers.Dense(2)])
        model.compile("adam", keras.losses.MeanSquaredError())
        x = np.random.default_rng(0).random((2, *shape), dtype="float32")
        return model, x, model.predict(x, verbose=0)

    return make


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("several", "file"),
        ("several", "folder"),
        ("several", "pickle"),
        ("cut", "h5"),
        ("subclassed", "file"),
        ("cut", "file"),
        ("distributed", "file"),
    ],
)
def test_models_of_all_kinds_are_loaded_in_a_fresh_process(kind, way, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, x, expected = made(kind)
    np.save("x.npy", x)
    if way == "file":
        model.save("m.keras")
        load = "keras.models.load_model('m.keras', objects)"
    elif way == "folder":
        keras.saving.save_model(model, "m", zipped=False)
        load = "keras.models.load_model('m', objects)"
    elif way == "h5":
        model.save("m.h5")
        load = "keras.models.load_model('m.h5')"
    else:
        (tmp_path / "m.pickle").write_bytes(pickle.dumps(model))
        load = "pickle.load(open('m.pickle', 'rb'))"
    code = f"""
import os, pickle
if {kind!r} == "subclassed":
    from test_backbone import Wrapper
    objects = {{"Wrapper": Wrapper}}
else:
    objects = None
model = {load}
x = np.load("x.npy")
print(model.predict(x, verbose=0).tolist())
if {way!r} != "h5":  # there Keras builds the optimizer without variables
    model.fit(x, model.predict(x, verbose=0), verbose=0)
model.save("again.keras")
clone = keras.models.load_model("again.keras", objects)
np.testing.assert_array_equal(clone.predict(x, verbose=0), model.predict(x, verbose=0))
"""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([*map(str, HERE), os.environ.get("PYTHONPATH", "")])
    )
    answer = json.loads(next(line for line in elsewhere(code).splitlines() if line.startswith("[")))
    answer = np.array(answer)
    mixed = 16 if kind == "several" else 0  # the last features, those of mixed precision
    exact = expected.shape[-1] - mixed
    np.testing.assert_allclose(answer[..., :exact], expected[..., :exact], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(answer[..., exact:], expected[..., exact:], **BFLOAT16)


@pytest.mark.long
def test_a_checkpoint_and_a_backup_resume_in_a_fresh_process(tiny_savedmodel, tmp_path):
    model = classifier(Backbone(tiny_savedmodel))
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "m.keras")
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[keep])
    model.save_weights(tmp_path / "end.weights.h5")
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    code = f"""
import os
os.chdir({str(tmp_path)!r})
data = np.load("data.npz")
model = keras.models.load_model("m.keras")
print(model.optimizer.iterations.numpy().item(), model.predict(data["x"], verbose=0).tolist())

class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

for callbacks in ([Stop()], []):
    model = keras.models.load_model("m.keras")
    backup = keras.callbacks.BackupAndRestore("backup", delete_checkpoint=False)
    callbacks.append(backup)
    try:
        history = model.fit(data["x"], data["y"], epochs=3, verbose=0, callbacks=callbacks)
    except KeyboardInterrupt:
        pass
assert history.epoch == [1, 2], history.epoch
"""
    steps, answer = elsewhere(code).splitlines()[0].split(" ", 1)
    assert int(steps) == 2
    np.testing.assert_allclose(json.loads(answer), model.predict(X, verbose=0), atol=1e-5)


@pytest.mark.long
def test_wrong_arguments_are_told(tiny_savedmodel):
    with pytest.raises(ValueError, match="Expected taps from 1 to 3"):
        Backbone(tiny_savedmodel, taps=4)
    with pytest.raises(
        ValueError, match='Expected batch_norm to be "auto", "inference" or "train". Received'
    ):
        Backbone(tiny_savedmodel, batch_norm="off")
    with pytest.raises(ValueError, match=r"Expected inputs of shape \(batch, 32, 32, 3\)"):
        keras.Sequential([keras.Input((64, 64, 3)), Backbone(tiny_savedmodel)])
    with pytest.raises(ValueError, match="The stages are: block0, block1, block2"):
        Backbone(tiny_savedmodel).unfreeze("block9")
    with pytest.raises(
        ValueError,
        match=r"Expected a number of stages from 0 to 3. Received: 1.5. The stages are: block0",
    ):
        Backbone(tiny_savedmodel).unfreeze(1.5)


def test_a_plan_that_is_refused_changes_nothing(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel, trainable=False, batch_norm="train")
    with pytest.raises(
        ValueError, match='Expected batch_norm="auto" or "inference" for a partly frozen Backbone'
    ):
        backbone.unfreeze(1)
    assert (
        not backbone.trainable
        and not backbone.trainable_variables
        and backbone.get_config()["plan"] is None
    )


def test_what_cannot_be_trained_says_so(tmp_path):
    root = tf.train.Checkpoint(w=tf.Variable(tf.ones((3, 4))))
    serve = tf.function(
        lambda x: tf.reduce_mean(x, [1, 2]) @ root.w,
        input_signature=[tf.TensorSpec((None, 32, 32, 3))],
    )
    tf.saved_model.save(root, str(tmp_path / "m"), signatures=serve)
    with pytest.raises(
        SavedModelError, match="can't be fine-tuned: it has signatures only.*trainable=False"
    ):
        Backbone(tmp_path / "m")
    assert Backbone(tmp_path / "m", trainable=False)(X).shape == (8, 4)


@pytest.mark.long
def test_every_stage_by_number_is_everything(tiny_savedmodel):
    backbone = Backbone(tiny_savedmodel)
    backbone.unfreeze(3)
    model, before = classifier(backbone), snapshot(backbone)
    model.fit(X, Y, verbose=0)
    assert [path for path in moved(before, backbone) if "moving" in path]


def test_statistics_of_frozen_stages_cannot_be_made_to_move(tiny_savedmodel):
    with pytest.raises(ValueError, match="would move statistics of frozen stages"):
        Backbone(tiny_savedmodel, batch_norm="train").unfreeze(1)
    with pytest.raises(ValueError, match="Expected arguments without `training`"):
        Backbone(tiny_savedmodel, trainable=False, arguments={"training": True})


def test_a_clone_starts_from_the_pretrained_weights(tiny_savedmodel):
    model = classifier(Backbone(tiny_savedmodel))
    clone = keras.models.clone_model(model)
    for mine, theirs in zip(
        model.layers[0].get_weights(), clone.layers[0].get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.long
def test_regularization_counts_once_where_the_layer_is_called_twice(regularized):
    backbone = Backbone(regularized[0])
    image = keras.Input((32, 32, 3))
    model = keras.Model(
        image, keras.layers.Average()([backbone(image), backbone(keras.ops.flip(image, 2))])
    )
    model(X)
    assert len(model.losses) == 1


def test_another_image_size_is_refused_in_a_plain_call(tiny_savedmodel):
    with pytest.raises(ValueError, match=r"Expected inputs of shape \(batch, 32, 32, 3\)"):
        Backbone(tiny_savedmodel, trainable=False)(np.zeros((1, 48, 64, 3), np.float32))


@pytest.mark.long
def test_in_mixed_precision_it_trains_with_float32_weights_and_reloads(tiny_savedmodel, tmp_path):
    layer = Backbone(tiny_savedmodel, precision="mixed")
    model = keras.Sequential([keras.Input((32, 32, 3)), layer, keras.layers.Dense(2)])
    model.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    rng = np.random.default_rng(0)
    x, y = rng.random((32, 32, 32, 3), np.float32), np.arange(32) % 2
    x[y == 1] *= 0.5
    losses = model.fit(x, y, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert {weight.dtype for weight in layer.weights if "seed" not in weight.name} == {
        "float32"
    } and layer(x).dtype == tf.float32
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[0].precision == "mixed"
    for weight, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    np.testing.assert_allclose(again(x), model(x), **BFLOAT16)
    with pytest.raises(
        ValueError,
        match=r'Expected precision to be "float32" or "mixed". Received: precision=\'half\'',
    ):
        Backbone(tiny_savedmodel, precision="half")


@pytest.mark.long
@pytest.mark.parametrize("file", ["m.keras", "m.h5"])
def test_clones_of_a_loaded_layer_have_its_weights_elsewhere(file, tiny_savedmodel, tmp_path):
    model = classifier(Backbone(tiny_savedmodel))
    model.layers[0].set_weights([w + 1 for w in model.layers[0].get_weights()])
    model.save(tmp_path / file)
    code = f"""
import keras, numpy as np, tfxfer
model = keras.models.load_model({str(tmp_path / file)!r})
clones = [keras.models.clone_model(model), type(model).from_config(model.get_config())]
for clone in clones:
    for one, other in zip(model.layers[0].get_weights(), \
clone.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
"""
    subprocess.run([python(), "-c", code], check=True)


@pytest.mark.long
def test_it_can_be_made_in_the_build_of_a_model_that_is_fitted(tiny_savedmodel):
    class Network(keras.Model):
        def build(self, shape):
            self.backbone, self.head = Backbone(tiny_savedmodel), keras.layers.Dense(3)

        def call(self, x):
            return self.head(self.backbone(x))

    model = Network()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(X, np.arange(len(X)) % 3, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert model.backbone.get_weights()


@pytest.mark.long
@pytest.mark.parametrize("what", ["the layer", "a model"])
@pytest.mark.parametrize("trainable", [True, False])
def test_a_checkpoint_of_tensorflow_holds_its_weights(what, trainable, tiny_savedmodel, tmp_path):
    def make():
        layer = Backbone(tiny_savedmodel, trainable=trainable)
        model = keras.Sequential([keras.Input((32, 32, 3)), layer, keras.layers.Dense(2)])
        return layer if what == "the layer" else model

    old, new = make(), make()
    for weight in old.weights:
        weight.assign(weight + 1)
    path = tf.train.Checkpoint(it=old).save(str(tmp_path / "c"))
    tf.train.Checkpoint(it=new).restore(path).assert_consumed()
    for one, other in zip(old.get_weights(), new.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", ["64", (64,), (64, 64, 3), 0, 64.0])
def test_what_is_no_image_size_is_refused(size, tiny_savedmodel):
    with pytest.raises(ValueError, match="one whole number or two"):
        Backbone(tiny_savedmodel, image_size=size)


def test_true_is_no_number_of_stages(tiny_savedmodel):
    with pytest.raises(ValueError, match="Received: True"):
        Backbone(tiny_savedmodel).unfreeze(True)


def test_an_empty_batch_gives_no_features(tiny_savedmodel):
    assert Backbone(tiny_savedmodel)(np.zeros((0, 32, 32, 3), np.float32)).shape == (0, 16)
