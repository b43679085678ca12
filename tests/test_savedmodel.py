"""SavedModels read as pure functions, and those that are refused."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from savedmodels import raw, save_reusable, tiny_network, vision_transformer
from tensorflow.python.framework import op_def_registry

from tfxfer import savedmodel
from tfxfer.backbone import Backbone
from tfxfer.errors import DeniedOperationError, SavedModelError
from tfxfer.savedmodel.mixed import convert_to_mixed
from tfxfer.savedmodel.operations import ALLOWED

SPEC = tf.TensorSpec((None, 8, 8, 3), tf.float32)


def images(size: int, count: int = 4) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).random((count, size, size, 3), dtype=np.float32))


def values(pretrained, graph):
    return [tf.constant(pretrained.weights[i].value) for i in graph.weights]


def save(root, call, folder, spec=SPEC, **variables) -> str:
    """Save any call as a root with attributes."""
    for name, value in variables.items():
        setattr(root, name, value)
    root.__call__ = tf.function(call, input_signature=[spec])
    tf.saved_model.save(root, str(folder))
    return str(folder)


@pytest.mark.long
@pytest.mark.parametrize("network", [lambda: tiny_network(dropout=0.3), vision_transformer])
def test_the_output_is_that_of_the_loaded_object(network, tmp_path):
    folder = save_reusable(network(), tmp_path / "model")
    pretrained, original = savedmodel.read(folder), tf.saved_model.load(folder)
    pure = savedmodel.function(pretrained.inference, pretrained.weights, pretrained.input_shape)
    np.testing.assert_allclose(
        pure(images(32), *values(pretrained, pretrained.inference))[0],
        original(images(32)),
        atol=1e-6,
    )


@pytest.mark.long
def test_training_moves_statistics_and_draws_dropout_as_the_loaded_object_does(tiny_savedmodel):
    pretrained, original = savedmodel.read(tiny_savedmodel), tf.saved_model.load(tiny_savedmodel)
    pure = savedmodel.function(pretrained.training, pretrained.weights, pretrained.input_shape)
    output, *updates = pure(images(32), *values(pretrained, pretrained.training))
    np.testing.assert_allclose(output, original(images(32), training=True), rtol=2e-5, atol=1e-6)
    after = {
        v.name.split(":")[0].replace("/", "."): v.numpy() for v in savedmodel.variables_of(original)
    }
    assert len(updates) == 9
    for (i, _), value in zip(pretrained.training.updates, updates, strict=True):
        np.testing.assert_allclose(value, after[pretrained.weights[i].name], rtol=2e-5, atol=1e-6)


@pytest.mark.long
def test_gradients_through_swish_are_those_of_the_loaded_object(tiny_savedmodel):
    pretrained, original = savedmodel.read(tiny_savedmodel), tf.saved_model.load(tiny_savedmodel)
    pure, mine = (
        savedmodel.function(pretrained.inference, pretrained.weights, pretrained.input_shape),
        values(pretrained, pretrained.inference),
    )
    with tf.GradientTape() as tape:
        tape.watch(mine)
        loss = tf.reduce_sum(pure(images(32), *mine)[0] ** 2)
    found = dict(
        zip(
            (pretrained.weights[i].name for i in pretrained.inference.weights),
            tape.gradient(loss, mine),
            strict=True,
        )
    )
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(original(images(32)) ** 2)
    theirs = list(original.trainable_variables)
    expected = tape.gradient(loss, theirs)
    largest = max(float(tf.reduce_max(tf.abs(g))) for g in expected)
    for variable, gradient in zip(theirs, expected, strict=True):
        np.testing.assert_allclose(
            found[variable.name.split(":")[0].replace("/", ".")], gradient, atol=1e-6 * largest
        )


def test_a_variable_read_after_it_was_written_has_its_new_value(tmp_path):
    root = tf.train.Checkpoint()
    counter = tf.Variable(1.0)

    def call(x):
        counter.assign_add(1.0)
        first = counter.read_value()
        counter.assign(first * 10.0)
        return tf.reduce_mean(x, [1, 2]) * counter

    pretrained = savedmodel.read(
        save(root, call, tmp_path / "m", counter=counter, trainable_variables=[counter])
    )
    output, after = savedmodel.function(pretrained.inference, pretrained.weights, (8, 8, 3))(
        tf.ones((1, 8, 8, 3)), 1.0
    )
    assert float(after) == 20.0 and float(output[0, 0]) == 20.0


@pytest.mark.long
def test_regularization_losses_are_a_graph_of_the_weights(tmp_path):
    model = tiny_network()
    kernel = raw(model.trainable_variables)[0]
    pretrained = savedmodel.read(
        save_reusable(model, tmp_path / "m", losses=[lambda: 0.5 * tf.reduce_sum(kernel**2)])
    )
    loss = savedmodel.function(pretrained.regularization, pretrained.weights, (32, 32, 3))(
        *values(pretrained, pretrained.regularization)
    )[0]
    assert float(loss) == pytest.approx(0.5 * float(tf.reduce_sum(kernel**2)), rel=1e-6)


def test_further_arguments_reach_the_call(tmp_path):
    root = tf.train.Checkpoint(scale=tf.Variable([1.0, 1.0, 1.0]))
    root.trainable_variables = [root.scale]

    @tf.function
    def call(x, training=False, factor=1.0):
        return tf.reduce_mean(x, [1, 2]) * root.scale * factor

    for training in (False, True):
        call.get_concrete_function(SPEC, training=training, factor=tf.TensorSpec((), tf.float32))
        call.get_concrete_function(SPEC, training=training)
    root.__call__ = call
    tf.saved_model.save(root, str(tmp_path / "m"))
    pretrained = savedmodel.read(tmp_path / "m", arguments={"factor": tf.constant(3.0)})
    pure = savedmodel.function(pretrained.inference, pretrained.weights, (8, 8, 3))
    assert (
        float(pure(tf.ones((1, 8, 8, 3)), *values(pretrained, pretrained.inference))[0][0, 0])
        == 3.0
    )
    with pytest.raises(SavedModelError, match=r"Received arguments \['speed'\]; its call takes"):
        savedmodel.read(tmp_path / "m", arguments={"speed": 1.0})


def test_a_savedmodel_with_signatures_only_extracts_features_but_does_not_train(tmp_path):
    root = tf.train.Checkpoint(w=tf.Variable(tf.ones((3, 4))))
    serve = tf.function(
        lambda x: {"features": tf.reduce_mean(x, [1, 2]) @ root.w}, input_signature=[SPEC]
    )
    tf.saved_model.save(root, str(tmp_path / "m"), signatures=serve)
    pretrained = savedmodel.read(tmp_path / "m")
    assert pretrained.features == 4 and "signatures only" in pretrained.reason
    with pytest.raises(SavedModelError, match="momentum"):
        savedmodel.read(tmp_path / "m", arguments={"momentum": 0.9})
    assert not any(weight.trainable for weight in pretrained.weights)


def test_variables_read_inside_a_loop_are_frozen_and_the_reason_is_told(tmp_path):
    root = tf.train.Checkpoint(w=tf.Variable(tf.eye(3) * 2.0))

    def call(x):
        y = tf.reduce_mean(x, [1, 2])
        return tf.while_loop(
            lambda i, y: i < tf.cast(tf.reduce_max(y) * 0.0, tf.int32) + 3,
            lambda i, y: (i + 1, tf.ensure_shape(y @ root.w, (None, 3))),
            (0, y),
        )[1]

    pretrained = savedmodel.read(save(root, call, tmp_path / "m", trainable_variables=[root.w]))
    assert "inside a" in pretrained.reason
    pure = savedmodel.function(pretrained.inference, pretrained.weights, (8, 8, 3))
    np.testing.assert_allclose(
        pure(tf.ones((2, 8, 8, 3)), *values(pretrained, pretrained.inference))[0],
        np.full((2, 3), 8.0),
    )


def test_a_gradient_that_cannot_be_kept_allows_frozen_use_only(tmp_path):
    root = tf.train.Checkpoint(w=tf.Variable(tf.ones((3, 4))))

    @tf.custom_gradient
    def reverse(x):
        return tf.identity(x), lambda upstream: -upstream

    folder = save(
        root,
        lambda x: reverse(tf.reduce_mean(x, [1, 2]) @ root.w),
        tmp_path / "m",
        trainable_variables=[root.w],
    )
    assert "custom gradient" in savedmodel.read(folder).reason


def test_several_outputs_are_refused_with_their_names(tmp_path):
    folder = save(
        tf.train.Checkpoint(),
        lambda x: {"a": tf.reduce_mean(x, [1, 2]), "b": tf.reduce_max(x, [1, 2])},
        tmp_path / "m",
    )
    with pytest.raises(SavedModelError, match=r"several outputs \(a \(None, 3\), b \(None, 3\)\)"):
        savedmodel.read(folder)


def test_any_image_size_asks_for_one(tmp_path):
    spec = tf.TensorSpec((None, None, None, 3), tf.float32)
    folder = save(tf.train.Checkpoint(), lambda x: tf.reduce_mean(x, [1, 2]), tmp_path / "m", spec)
    with pytest.raises(SavedModelError, match="--image-size 224"):
        savedmodel.read(folder)
    assert savedmodel.read(folder, image_size=(40, 48)).input_shape == (40, 48, 3)


def test_another_size_than_the_graphs_own_is_refused(tiny_savedmodel):
    with pytest.raises(SavedModelError, match="takes images of 32 x 32, not 64 x 64"):
        savedmodel.read(tiny_savedmodel, image_size=(64, 64))


def test_a_table_becomes_part_of_the_graph(tmp_path):
    root = tf.train.Checkpoint()
    root.table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer([0, 1], [1.0, 2.0]), 0.0
    )
    folder = save(
        root,
        lambda x: tf.reduce_mean(x, [1, 2]) * root.table.lookup(tf.constant(1)),
        tmp_path / "m",
    )
    x = np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32)
    found = Backbone(folder, image_size=8, trainable=False)(x).numpy()
    np.testing.assert_allclose(found, 2 * x.mean((1, 2)), rtol=1e-5)


def test_a_model_of_another_input_is_refused(tmp_path):
    folder = save(
        tf.train.Checkpoint(),
        lambda x: tf.cast(x, tf.float32),
        tmp_path / "m",
        tf.TensorSpec((None, 5), tf.int32),
    )
    with pytest.raises(SavedModelError, match=r"expected one input of float32 images"):
        savedmodel.read(folder)


def test_the_tf1_format_is_refused(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3))
        y = tf.reduce_mean(x, [1, 2])
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "m"))
        signature = tf.compat.v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    with pytest.raises(SavedModelError, match="TF1-format SavedModel.*can't be fine-tuned"):
        savedmodel.read(tmp_path / "m")


def test_a_damaged_file_is_named(tiny_savedmodel, tmp_path):
    folder = Path(shutil.copytree(tiny_savedmodel, tmp_path / "m"))
    (folder / "saved_model.pb").write_bytes(b"\xff\xff not a model")
    with pytest.raises(SavedModelError, match=r"saved_model.pb is damaged"):
        savedmodel.read(folder)


def test_cut_variables_are_named(tiny_savedmodel, tmp_path):
    folder = Path(shutil.copytree(tiny_savedmodel, tmp_path / "m"))
    data = next((folder / "variables").glob("*.data*"))
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(SavedModelError, match="If it is damaged, fetch or export it again"):
        savedmodel.read(folder)


def test_a_graph_that_reads_files_is_refused_by_name_unless_trusted(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"1.0")

    def call(x):
        return tf.reduce_mean(x, [1, 2]) * tf.strings.to_number(tf.io.read_file(str(secret)))

    folder = save(tf.train.Checkpoint(), call, tmp_path / "m")
    with pytest.raises(DeniedOperationError, match=r"\bReadFile\b.*--trust"):
        savedmodel.read(folder)
    assert savedmodel.read(folder, trust=True).features == 3


def test_reading_inside_a_strategy_scope_is_refused(tiny_savedmodel):
    with (
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope(),
        pytest.raises(SavedModelError, match="can't be read inside a strategy scope"),
    ):
        savedmodel.read(tiny_savedmodel)


def test_tensorflows_private_inliner_is_where_it_was(tiny_savedmodel):
    concrete = tf.function(lambda x: tf.saved_model.load(tiny_savedmodel)(x)).get_concrete_function(
        tf.TensorSpec((None, 32, 32, 3))
    )
    assert not {"PartitionedCall", "StatefulPartitionedCall"} & {
        node.op for node in savedmodel.inline_functions(concrete).node
    }


def test_a_grouped_convolution_of_keras_is_opened(tmp_path):
    image = keras.Input((16, 16, 3))
    x = keras.layers.DepthwiseConv2D(3, padding="same")(keras.layers.Conv2D(8, 3)(image))
    x = keras.layers.Conv2D(8, 3, groups=4, padding="same")(x)
    folder = save_reusable(
        keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)), tmp_path / "m"
    )
    pretrained, original = savedmodel.read(folder), tf.saved_model.load(folder)
    assert pretrained.reason == ""
    pure = savedmodel.function(pretrained.inference, pretrained.weights, (16, 16, 3))
    np.testing.assert_allclose(
        pure(images(16), *values(pretrained, pretrained.inference))[0],
        original(images(16)),
        atol=1e-6,
    )


def test_names_that_repeat_and_large_constants_in_scopes_are_read(tmp_path):
    root = tf.train.Checkpoint(
        a=tf.Variable(tf.random.normal((3, 5)), name="kernel"),
        b=tf.Variable(tf.random.normal((5, 4)), name="kernel"),
    )
    root.trainable_variables = [root.a, root.b]

    def call(x):
        with tf.name_scope("outer"), tf.name_scope("inner"):
            table = tf.constant(
                np.random.default_rng(0).standard_normal((4, 6000)).astype(np.float32), name="table"
            )
        return tf.nn.silu(tf.nn.silu(tf.reduce_mean(x, [1, 2]) @ root.a) @ root.b) @ table

    folder = save(root, call, tmp_path / "m")
    pretrained, original = savedmodel.read(folder), tf.saved_model.load(folder)
    assert pretrained.reason == "" and pretrained.inference.graph.ByteSize() < 50_000
    pure = savedmodel.function(pretrained.inference, pretrained.weights, (8, 8, 3))
    np.testing.assert_allclose(
        pure(images(8), *values(pretrained, pretrained.inference))[0],
        original(images(8)),
        rtol=1e-5,
    )


def test_a_custom_gradient_in_training_alone_allows_frozen_use_only(tmp_path):
    root = tf.train.Checkpoint(w=tf.Variable(tf.ones((3, 4))))
    root.trainable_variables = [root.w]

    @tf.custom_gradient
    def reverse(x):
        return tf.identity(x), lambda upstream: -upstream

    @tf.function
    def call(x, training=False):
        y = tf.reduce_mean(x, [1, 2]) @ root.w
        return reverse(y) if training else y

    for training in (False, True):
        call.get_concrete_function(SPEC, training=training)
    root.__call__ = call
    tf.saved_model.save(root, str(tmp_path / "m"))
    assert "custom gradient" in savedmodel.read(tmp_path / "m").reason


def test_tokens_merged_into_the_batch_end_no_stage(tmp_path):
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(image)
    for width in (5, 6):
        x = keras.layers.Dense(width, activation="relu")(x)
    folder = save_reusable(
        keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)), tmp_path / "m"
    )
    assert all(len(shape) in (1, 3) for shape in savedmodel.read(folder).stage_shapes)


def test_a_mean_over_one_axis_is_not_the_mean_of_a_map(tmp_path):
    folder = save(
        tf.train.Checkpoint(),
        lambda x: tf.ensure_shape(tf.reshape(tf.reduce_mean(x, [1]), [-1, 24]), (None, 24)),
        tmp_path / "m",
    )
    pretrained = savedmodel.read(folder)
    assert pretrained.features == 24 and pretrained.last_map == pretrained.inference.output


@pytest.mark.parametrize("place", ["initializer", "loop"])
def test_a_checkpoint_operation_where_none_belongs_is_refused(place, tmp_path):
    target = str(tmp_path / "written")

    def write():
        return tf.raw_ops.SaveV2(
            prefix=target, tensor_names=["x"], shape_and_slices=[""], tensors=[tf.zeros(3)]
        )

    class Initializer(tf.lookup.KeyValueTensorInitializer):
        def initialize(self, table):
            if tf.compat.v1.get_default_graph().building_function:
                with tf.control_dependencies([write()]):
                    return super().initialize(table)
            return super().initialize(table)

    def body(i, y):
        with tf.control_dependencies([write()]):
            return i + 1, tf.identity(y)

    root = tf.train.Checkpoint(w=tf.Variable(tf.ones((3, 4))))
    if place == "initializer":
        root.table = tf.lookup.StaticHashTable(Initializer(["a"], [1]), 0)

    def call(x):
        y = tf.reduce_mean(x, [1, 2]) @ root.w
        return y if place == "initializer" else tf.while_loop(lambda i, _: i < 1, body, (0, y))[1]

    folder = save(root, call, tmp_path / "m")
    with pytest.raises(DeniedOperationError, match="SaveV2"):
        savedmodel.read(folder)
    assert not list(tmp_path.glob("written*"))


def test_no_operation_that_names_a_file_is_allowed_by_oversight():
    words = ("file", "path", "url", "directory", "address", "region", "descriptor")
    suspicious = set()
    for name in ALLOWED:
        definition = op_def_registry.get(name)
        fields = [a.name for a in definition.attr] + [a.name for a in definition.input_arg]
        if any(word in field.lower() for field in fields for word in words):
            suspicious.add(name)
    # Its field `is_files` only says that the strings of a constant are names; it opens none.
    assert suspicious == {"TensorSliceDataset"}


@pytest.mark.long
@pytest.mark.parametrize("kernel, size", [(5, 7), (7, 5), (5, 12), (3, 7), (4, 6)])
def test_fast_gradients_are_those_of_the_loaded_object(kernel, size, tmp_path):
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(6, 1, padding="same", use_bias=False)(inputs)
    x = keras.layers.DepthwiseConv2D(kernel, padding="same")(x)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu6")(x)
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    pretrained = savedmodel.read(save_reusable(network, tmp_path / "model"))
    x, found = images(size), []
    for fast in (False, True):
        pure, mine = (
            savedmodel.function(
                pretrained.inference, pretrained.weights, pretrained.input_shape, fast=fast
            ),
            values(pretrained, pretrained.inference),
        )
        with tf.GradientTape() as tape:
            tape.watch([x, *mine])
            loss = tf.reduce_sum(pure(x, *mine)[0] ** 2)
        found.append(tape.gradient(loss, [x, *mine]))
    for slow, quick in zip(*found, strict=True):
        np.testing.assert_allclose(
            quick, slow, rtol=1e-5, atol=1e-6 * float(tf.reduce_max(tf.abs(slow)))
        )


@pytest.mark.long
@pytest.mark.parametrize("network", [lambda: tiny_network(dropout=0.3), vision_transformer])
def test_in_mixed_precision_products_are_in_bfloat16_and_sums_in_float32(network, tmp_path):
    pretrained = savedmodel.read(save_reusable(network(), tmp_path / "model"))
    graph = convert_to_mixed(pretrained.inference.graph)
    types = {
        node.name: tf.as_dtype(node.attr["T"].type).name
        for node in graph.node
        if node.attr["T"].type
    }
    assert {
        types[node.name]
        for node in graph.node
        if node.op in ("Conv2D", "MatMul", "BatchMatMulV2", "Einsum")
    } == {"bfloat16"}
    assert {types[node.name] for node in graph.node if node.op in ("Mean", "Softmax", "Rsqrt")} == {
        "float32"
    }
    assert {node.name for node in pretrained.inference.graph.node} <= {
        node.name for node in graph.node
    }
    casts = {f"{node.name}:0": node for node in graph.node if node.op == "Cast"}
    assert casts and not any(node.input[0] in casts for node in casts.values())
    exact, rough = (
        savedmodel.function(
            pretrained.inference, pretrained.weights, pretrained.input_shape, low=low
        )(images(32), *values(pretrained, pretrained.inference))[0]
        for low in (False, True)
    )
    assert (
        rough.dtype == tf.float32 and 0 < np.abs(rough - exact).max() < 0.02 * np.abs(exact).max()
    )


FILTERS = tf.constant(np.random.default_rng(1).normal(size=(3, 3, 3, 5)), tf.float32)


def convolved(x: tf.Tensor) -> tf.Tensor:
    """A map [B, 4, 4, 5] of images of 8 x 8 pixels."""
    return tf.nn.relu(tf.nn.conv2d(tf.cast(x, tf.float32), FILTERS, 2, "SAME"))


def mean_of_map(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(convolved(x), [1, 2])


def normalized_by_batch(x: tf.Tensor) -> tf.Tensor:
    statistics = tf.compat.v1.nn.fused_batch_norm(
        convolved(x), tf.ones(5), tf.zeros(5), is_training=True
    )
    return tf.reduce_max(statistics[0], [1, 2])


# What a network does wrong, and a word that the error must hold.
NOT_OF_EACH = {
    "dropout": (lambda x: tf.nn.dropout(mean_of_map(x), 0.5), "RandomUniform"),
    "statistics of the batch": (normalized_by_batch, "BatchNorm takes the statistics"),
    "the largest of the batch": (lambda x: mean_of_map(x / tf.reduce_max(x)), "other examples"),
    "a row for each position": (lambda x: tf.reshape(convolved(x), (-1, 5)), "16 rows for one"),
    "one row for all": (lambda x: tf.reduce_mean(convolved(x), [0, 1, 2])[None], r"\(1, 5\)"),
}


@pytest.mark.parametrize("name", NOT_OF_EACH)
def test_features_that_are_not_those_of_each_example_are_refused(name, tmp_path):
    call, word = NOT_OF_EACH[name]
    folder = save(tf.train.Checkpoint(), call, tmp_path / "m")
    with pytest.raises(SavedModelError, match=word):
        savedmodel.read(folder)


@pytest.mark.parametrize("name", ["is_training", "train", "is_train"])
def test_an_argument_that_tells_training_is_set(name, tmp_path):
    root = tf.train.Checkpoint(norm=keras.layers.BatchNormalization())
    root.norm.build((None, 4, 4, 5))
    root.norm.moving_mean.assign(np.arange(5, dtype=np.float32))

    def normalize(x, training):
        return tf.reduce_max(root.norm(convolved(x), training=training), [1, 2])

    calls = {
        "is_training": lambda x, is_training=True: normalize(x, is_training),
        "train": lambda x, train: normalize(x, train),
        "is_train": lambda x, is_train=True: normalize(x, is_train),
    }
    root.__call__ = tf.function(calls[name])
    for training in (True, False):
        root.__call__.get_concrete_function(SPEC, **{name: training})
    tf.saved_model.save(root, str(tmp_path / "m"))
    layer = Backbone(tmp_path / "m", batch_norm="train")
    np.testing.assert_allclose(layer(images(8)), normalize(images(8), False), rtol=1e-5)
    expected = normalize(images(8), True)
    np.testing.assert_allclose(layer(images(8), training=True), expected, rtol=1e-4)


def test_an_argument_without_a_default_is_named(tmp_path):
    root = tf.train.Checkpoint()
    root.__call__ = tf.function(lambda x, mode: mean_of_map(x) * mode)
    root.__call__.get_concrete_function(SPEC, mode=tf.TensorSpec(()))
    tf.saved_model.save(root, str(tmp_path / "m"))
    with pytest.raises(SavedModelError, match="needs the argument mode"):
        savedmodel.read(tmp_path / "m")


def test_a_map_with_channels_first_is_pooled_over_its_positions(tmp_path):
    folder = save(
        tf.train.Checkpoint(), lambda x: tf.transpose(convolved(x), [0, 3, 1, 2]), tmp_path / "m"
    )
    layer = Backbone(folder, trainable=False)
    np.testing.assert_allclose(layer(images(8)), mean_of_map(images(8)), rtol=1e-5)
    taps = layer.tapped(1)(images(8))
    np.testing.assert_allclose(taps[:, 5:], tf.reduce_max(convolved(images(8)), [1, 2]), rtol=1e-5)


def test_a_map_with_channels_nobody_knows_where_is_told(tmp_path, said):
    folder = save(tf.train.Checkpoint(), lambda x: tf.reshape(x, (-1, 12, 4, 4)), tmp_path / "m")
    assert savedmodel.read(folder).features == 4
    assert any("(12, 4, 4)" in line for line in said)


def test_a_call_that_takes_a_dict_or_a_name_is_called_so(tmp_path):
    calls = {
        "dict": tf.function(lambda x: mean_of_map(x["image"]), input_signature=[{"image": SPEC}]),
        "name": tf.function(lambda *, images: mean_of_map(images)),
    }
    calls["name"].get_concrete_function(images=SPEC)
    for name, call in calls.items():
        root = tf.train.Checkpoint()
        root.__call__ = call
        tf.saved_model.save(root, str(tmp_path / name))
        layer = Backbone(tmp_path / name, trainable=False)
        np.testing.assert_allclose(layer(images(8)), mean_of_map(images(8)), rtol=1e-5)


def test_a_call_that_was_never_called_is_named_or_a_signature_takes_its_place(tmp_path):
    root = tf.train.Checkpoint()
    root.__call__ = tf.function(mean_of_map)
    tf.saved_model.save(root, str(tmp_path / "without"))
    with pytest.raises(SavedModelError, match="never called before it was saved"):
        savedmodel.read(tmp_path / "without")
    serve = tf.function(lambda x: {"features": mean_of_map(x)}, input_signature=[SPEC])
    tf.saved_model.save(root, str(tmp_path / "with"), signatures=serve)
    assert savedmodel.read(tmp_path / "with").features == 5


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float16])
def test_what_a_network_takes_is_made_of_float32(dtype, tmp_path):
    spec = tf.TensorSpec((None, 8, 8, 3), dtype)
    folder = save(
        tf.train.Checkpoint(),
        lambda x: mean_of_map(tf.cast(x, tf.float32) / 255),
        tmp_path / "m",
        spec,
    )
    layer, pixels = Backbone(folder, trainable=False), tf.round(images(8) * 255)
    assert layer.value_range == (0.0, 255.0)
    np.testing.assert_allclose(layer(pixels), mean_of_map(pixels / 255), rtol=1e-3)


def test_bytes_are_0_to_255_whatever_a_network_does_with_them(tmp_path):
    spec = tf.TensorSpec((None, 8, 8, 3), tf.uint8)
    folder = save(
        tf.train.Checkpoint(),
        lambda x: mean_of_map(tf.sqrt(tf.cast(x, tf.float32))),
        tmp_path / "m",
        spec,
    )
    assert Backbone(folder, trainable=False).value_range == (0.0, 255.0)


@pytest.mark.parametrize(
    ("shape", "word"),
    [((8, 8, 1), "grey"), ((8, 8, 4), "4 channels"), ((3, 8, 8), "channels come first")],
)
def test_images_that_are_not_rgb_are_refused(shape, word, tmp_path):
    spec = tf.TensorSpec((None, *shape))
    folder = save(tf.train.Checkpoint(), lambda x: tf.reduce_mean(x, [1, 2]), tmp_path / "m", spec)
    with pytest.raises(SavedModelError, match=word):
        savedmodel.read(folder)


def decode(contents: tf.Tensor) -> tf.Tensor:
    """Images of 8 x 8 pixels from the contents of files."""
    return tf.map_fn(
        lambda one: tf.image.resize(tf.io.decode_jpeg(one, 3), (8, 8)) / 255,
        contents,
        fn_output_signature=tf.TensorSpec((8, 8, 3)),
    )


FILES = tf.TensorSpec((None,), tf.string, name="files")


def save_signatures(folder: Path, **calls) -> str:
    """Save functions with the specs of their inputs as signatures."""
    signatures = {
        name: tf.function(call, input_signature=[spec]) for name, (call, spec) in calls.items()
    }
    tf.saved_model.save(tf.train.Checkpoint(), str(folder), signatures=signatures)
    return str(folder)


def test_a_network_of_files_is_used_by_its_signature_of_pixels(tmp_path, said):
    both = save_signatures(
        tmp_path / "both",
        serving_default=(lambda files: {"features": mean_of_map(decode(files))}, FILES),
        decoded=(lambda x: {"features": mean_of_map(x)}, SPEC),
    )
    layer = Backbone(both, trainable=False)
    np.testing.assert_allclose(layer(images(8)), mean_of_map(images(8)), rtol=1e-5)
    assert any("decoded" in line for line in said)
    alone = save_signatures(
        tmp_path / "alone",
        serving_default=(lambda files: {"features": mean_of_map(decode(files))}, FILES),
    )
    with pytest.raises(SavedModelError, match="content of files"):
        savedmodel.read(alone)


def test_another_signature_is_told_and_chosen_by_its_name(tmp_path, said):
    folder = save_signatures(
        tmp_path / "m",
        serving_default=(lambda x: {"scores": tf.nn.softmax(mean_of_map(x)[:, :2])}, SPEC),
        features=(lambda x: {"output_0": mean_of_map(x)}, SPEC),
    )
    assert Backbone(folder, trainable=False).feature_size == 2
    assert any("features (output_0)" in line for line in said)
    layer = Backbone(folder, output="features", trainable=False)
    np.testing.assert_allclose(layer(images(8)), mean_of_map(images(8)), rtol=1e-5)


def test_a_network_that_asserts_something_about_its_pixels(tmp_path):
    def bright(x):
        tf.debugging.assert_greater(tf.reduce_max(x), 0.5, message="too dark")
        return mean_of_map(x)

    assert savedmodel.read(save(tf.train.Checkpoint(), bright, tmp_path / "m")).features == 5

    def checked(one):
        tf.debugging.assert_greater(tf.reduce_max(one), 1.5, message="too dark")
        return one

    folder = save(
        tf.train.Checkpoint(), lambda x: mean_of_map(tf.map_fn(checked, x)), tmp_path / "loop"
    )
    with pytest.raises(SavedModelError, match="assertion in its graph failed.*too dark"):
        savedmodel.read(folder)
