"""Presets of KerasHub as backbones: its own format, timm's and Transformers', and what fails."""

import base64
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import text_models
import tokenizers
from click.testing import CliRunner
from loaded import python
from safetensors.numpy import save_file
from savedmodels import moved_by_training

import tfxfer
from tfxfer.cli import main
from tfxfer.errors import DeniedOperationError, HandleError, MissingExtraError, SavedModelError
from tfxfer.handles import bytepairs, kerashub, kerashub_texts

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BYTE_TEXTS = [
    "",
    "A rose is a rose.",
    "it's  two   spaces \n\n lines\tand don't, I'll, we've",
    "\u00dcn\u00efcode \u6f22\u5b57 \U0001f642",
    "<s> inside <mask> text",
    " 123 4567,89!! end ",
    "\u6f22" * 400,
]
PIXELS = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype("float32")


@pytest.fixture(scope="module")
def keras_preset(tmp_path_factory) -> str:
    """A small ResNet with a classifier of 3 classes, saved by KerasHub."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
    )
    converter = keras_hub.layers.ResNetImageConverter(
        image_size=(64, 64),
        scale=[1 / 255 / value for value in DEVIATION],
        offset=[-mean / value for mean, value in zip(MEAN, DEVIATION, strict=True)],
    )
    preprocessor = keras_hub.models.ResNetImageClassifierPreprocessor(converter)
    folder = tmp_path_factory.mktemp("preset") / "resnet"
    keras_hub.models.ResNetImageClassifier(backbone, 3, preprocessor).save_to_preset(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def timm_preset(tmp_path_factory) -> str:
    """A ResNet-18 with random weights, in the files in which timm has it on Hugging Face."""
    folder = tmp_path_factory.mktemp("timm")
    config = {
        "architecture": "resnet18",
        "num_classes": 5,
        "num_features": 512,
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "interpolation": "bicubic",
            "mean": MEAN,
            "std": DEVIATION,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(resnet18(classes=5), folder / "model.safetensors")
    return str(folder)


def resnet18(classes: int) -> dict[str, np.ndarray]:
    """Random weights by the names and in the shapes of torchvision and timm."""
    rng, weights = np.random.default_rng(0), {}

    def convolution(name: str, outputs: int, inputs: int, side: int) -> None:
        scale = (2 / (inputs * side**2)) ** 0.5
        weights[f"{name}.weight"] = rng.normal(0, scale, (outputs, inputs, side, side))

    def norm(name: str, size: int) -> None:
        weights[f"{name}.weight"] = rng.uniform(0.5, 1.5, size)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, size)
        weights[f"{name}.running_mean"] = rng.normal(0, 0.1, size)
        weights[f"{name}.running_var"] = rng.uniform(0.5, 1.5, size)

    convolution("conv1", 64, 3, 7)
    norm("bn1", 64)
    inputs = 64
    for layer, size in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            convolution(f"{name}.conv1", size, inputs, 3)
            norm(f"{name}.bn1", size)
            convolution(f"{name}.conv2", size, size, 3)
            norm(f"{name}.bn2", size)
            if inputs != size:
                convolution(f"{name}.downsample.0", size, inputs, 1)
                norm(f"{name}.downsample.1", size)
            inputs = size
    weights["fc.weight"] = rng.normal(0, 0.05, (classes, 512))
    weights["fc.bias"] = rng.normal(0, 0.1, classes)
    return {name: value.astype("float32") for name, value in weights.items()}


@pytest.fixture(scope="module")
def transformers_preset(tmp_path_factory) -> str:
    """A small ViT with random weights, in the files of Transformers."""
    folder, rng = tmp_path_factory.mktemp("vit"), np.random.default_rng(0)
    size, hidden = 16, 32
    config = {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "image_size": 64,
        "patch_size": 16,
        "hidden_size": size,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": hidden,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "qkv_bias": True,
        "num_labels": 3,
        "id2label": {"0": "a", "1": "b", "2": "c"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    prepared = {
        "do_resize": True,
        "size": {"height": 64, "width": 64},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "rescale_factor": 1 / 255,
        "resample": 2,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    shapes = {
        "vit.embeddings.cls_token": (1, 1, size),
        "vit.embeddings.position_embeddings": (1, 17, size),
        "vit.embeddings.patch_embeddings.projection.weight": (size, 3, 16, 16),
        "vit.embeddings.patch_embeddings.projection.bias": (size,),
        "vit.layernorm.weight": (size,),
        "vit.layernorm.bias": (size,),
        "classifier.weight": (3, size),
        "classifier.bias": (3,),
    }
    for layer in range(2):
        name = f"vit.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            shapes[f"{name}.attention.attention.{part}.weight"] = (size, size)
            shapes[f"{name}.attention.attention.{part}.bias"] = (size,)
        for part, (outputs, inputs) in {
            "attention.output.dense": (size, size),
            "intermediate.dense": (hidden, size),
            "output.dense": (size, hidden),
        }.items():
            shapes[f"{name}.{part}.weight"] = (outputs, inputs)
            shapes[f"{name}.{part}.bias"] = (outputs,)
        for part in ("layernorm_before", "layernorm_after"):
            shapes[f"{name}.{part}.weight"] = (size,)
            shapes[f"{name}.{part}.bias"] = (size,)
    weights = {name: rng.normal(0, 0.2, shape) for name, shape in shapes.items()}
    save_file(
        {name: value.astype("float32") for name, value in weights.items()},
        folder / "model.safetensors",
    )
    return str(folder)


@pytest.fixture(scope="module")
def text_preset(tmp_path_factory) -> str:
    """A small BERT with random weights and a vocabulary of its own, saved by KerasHub."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(text_models.PIECES) + 1,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=128,
    )
    pieces = [*text_models.PIECES, "[MASK]"]
    tokenizer = keras_hub.models.BertTokenizer(pieces, lowercase=True)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer)
    folder = tmp_path_factory.mktemp("preset") / "bert"
    task = keras_hub.models.BertTextClassifier(backbone, 2, preprocessor=preprocessor)
    task.save_to_preset(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def sentencepiece_preset(tmp_path_factory) -> str:
    """A small ALBERT, whose tokenizer is a SentencePiece model."""
    special = ["[CLS]", "[SEP]", "[MASK]"]
    model = text_models.sentencepiece_model(
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        pad_piece="<pad>",
        unk_piece="<unk>",
        user_defined_symbols=special,
    )
    tokenizer = keras_hub.models.AlbertTokenizer(model)
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.AlbertBackbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=2,
        num_heads=2,
        embedding_dim=8,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=64,
    )
    folder = str(tmp_path_factory.mktemp("preset") / "albert")
    backbone.save_to_preset(folder)
    keras_hub.models.AlbertTextClassifierPreprocessor(tokenizer).save_to_preset(folder)
    return folder


@pytest.fixture(scope="module")
def byte_tokenizer() -> tokenizers.Tokenizer:
    """A tokenizer of bytes in the manner of GPT-2, as the library `tokenizers` trains it."""
    found = tokenizers.Tokenizer(tokenizers.models.BPE())
    found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=bytepairs.letters_of_bytes(),
        special_tokens=["<s>", "<pad>", "</s>", "<mask>"],
        show_progress=False,
    )
    found.train_from_iterator([" ".join(text_models.WORDS), *BYTE_TEXTS], trainer)
    return found


@pytest.fixture(scope="module")
def byte_preset(tmp_path_factory, byte_tokenizer) -> str:
    """A small RoBERTa, whose tokenizer merges bytes."""
    model = json.loads(byte_tokenizer.to_str())["model"]
    tokenizer = keras_hub.models.RobertaTokenizer(
        model["vocab"], [" ".join(pair) for pair in model["merges"]]
    )
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.RobertaBackbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=66,
    )
    folder = str(tmp_path_factory.mktemp("preset") / "roberta")
    backbone.save_to_preset(folder)
    keras_hub.models.RobertaTextClassifierPreprocessor(tokenizer).save_to_preset(folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("preset", ["sentencepiece_preset", "byte_preset"])
def test_texts_are_cut_as_kerashub_cuts_them(preset, request):
    folder = request.getfixturevalue(preset)
    sentences = ["A rose is a rose.", "", "my bread, good", "nothing \u00c5known", "soil " * 100]
    prepare = keras_hub.models.TextClassifierPreprocessor.from_preset(folder, sequence_length=64)
    # Where no graph is traced, KerasHub 0.32 cuts words in the manner of Llama.
    pieces = tf.function(prepare)(tf.constant(sentences))
    answer = keras_hub.models.Backbone.from_preset(folder)(pieces)
    output = np.asarray(answer["sequence_output"] if isinstance(answer, dict) else answer)
    there = np.asarray(pieces["padding_mask"], np.float32)[..., None]
    layer = tfxfer.Backbone(folder, length=64, trust=preset == "sentencepiece_preset")
    rows = layer.takes.decode_many(tf.constant(sentences))
    np.testing.assert_allclose(layer(rows), (output * there).sum(1) / there.sum(1), atol=1e-5)
    assert not layer.why_frozen


def test_bytes_are_merged_as_in_the_original(byte_tokenizer, byte_preset):
    own = keras_hub.models.RobertaTokenizer.from_preset(byte_preset)
    found = kerashub_texts.tokenize_without_memory(own)(tf.constant(BYTE_TEXTS)).to_list()
    byte_tokenizer.add_special_tokens(own.unsplittable_tokens)
    assert found == [byte_tokenizer.encode(text).ids for text in BYTE_TEXTS]


def test_a_vocabulary_without_all_bytes_is_refused():
    with pytest.raises(ValueError, match="255"):
        bytepairs.ByteLevel({"a": 0}, [])


@pytest.mark.parametrize("place", ["file", "config"])
def test_a_sentencepiece_model_is_not_read_without_trust(place, sentencepiece_preset, tmp_path):
    folder = Path(shutil.copytree(sentencepiece_preset, tmp_path / "albert"))
    model = folder / "assets" / "tokenizer" / "vocabulary.spm"
    if place == "config":
        config = json.loads((folder / "preprocessor.json").read_text())
        config["config"]["tokenizer"]["config"]["proto"] = base64.b64encode(
            model.read_bytes()
        ).decode()
        (folder / "preprocessor.json").write_text(json.dumps(config))
    model.write_bytes(b"no model: it must not even be opened")
    with pytest.raises(DeniedOperationError, match="SentencePiece"):
        tfxfer.Backbone(str(folder))


def test_a_preset_with_few_places_is_read_up_to_these(byte_preset):
    places = keras_hub.models.Backbone.from_preset(byte_preset).max_sequence_length
    assert places < kerashub_texts.LENGTH
    assert tfxfer.Backbone(byte_preset, trainable=False).takes.length == places


@pytest.mark.long
def test_texts_go_through_the_tokenizer_of_their_preset(text_preset):
    sentences = ["A rose is a rose.", "my bread, good", "nothing known", "soil " * 200]
    task = keras_hub.models.TextClassifier.from_preset(text_preset, num_classes=2)
    task.preprocessor.sequence_length = 128
    pieces = task.preprocessor(sentences)
    output = np.asarray(task.backbone(pieces)["sequence_output"])
    there = np.asarray(pieces["padding_mask"], np.float32)[..., None]
    layer = tfxfer.Backbone(text_preset)
    rows = layer.takes.decode_many(tf.constant(sentences))
    expected = (output * there).sum(1) / there.sum(1)
    np.testing.assert_allclose(layer(rows), expected, atol=1e-5)
    assert layer.takes.length == 128 and layer.takes.parts == 2 and not layer.why_frozen
    assert layer.stages[0].name == "words" and len(layer.stages) > 2


@pytest.mark.long
def test_a_preset_of_texts_reads_the_length_that_is_asked_for(text_preset):
    assert tfxfer.Backbone(text_preset, length=32).takes.length == 32
    with pytest.raises(HandleError, match="128"):  # it has no more places
        tfxfer.Backbone(text_preset, length=256)


def test_a_preset_of_texts_takes_no_other_tokenizer(text_preset):
    with pytest.raises(ValueError, match="preprocess"):
        tfxfer.Backbone(text_preset, preprocess=lambda texts: texts)


def classifier(folder: str) -> keras_hub.models.ImageClassifier:
    """KerasHub's own model of a preset, with its classifier and its preprocessor."""
    task = keras_hub.models.ImageClassifier.from_preset(folder)
    if task.preprocessor.image_converter is None:
        # KerasHub does not read how Transformers prepares images for a ViT.
        converter = keras_hub.layers.ViTImageConverter(scale=1 / 127.5, offset=-1.0)
        task.preprocessor = keras_hub.models.ViTImageClassifierPreprocessor(converter)
    return task


PRESETS = ("keras_preset", "timm_preset", "transformers_preset")


@pytest.mark.long
@pytest.mark.parametrize("preset", PRESETS)
def test_pictures_and_classes_are_those_of_kerashub(preset, request):
    folder = request.getfixturevalue(preset)
    layer = tfxfer.Backbone(folder, trainable=False)
    assert layer.image_size == (64, 64) and layer.value_range == (0.0, 255.0)
    task = classifier(folder)
    mine = np.asarray(task.output_dense(layer(PIXELS)))
    theirs = task.predict(PIXELS, verbose=0)
    np.testing.assert_allclose(mine, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.long
@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_and_updates_are_those_of_the_model(preset, request):
    folder = request.getfixturevalue(preset)
    layer = tfxfer.Backbone(folder, batch_norm="train")
    task = classifier(folder)
    prepared = tf.convert_to_tensor(task.preprocessor(PIXELS))
    backbone = kerashub.with_one_vector(task.backbone, folder)
    gradients, states = [], []
    for call, batch in ((backbone, prepared), (layer, tf.constant(PIXELS))):
        with tf.GradientTape() as tape:
            features = call(batch, training=True)
            features = tf.reduce_mean(features, (1, 2)) if features.shape.rank == 4 else features
            loss = tf.reduce_sum(features**2)
        trained = [variable.value for variable in call.trainable_weights]
        gradients.append(by_shape(tape.gradient(loss, trained)))
        states.append(by_shape(one for one in call.weights if "float" in one.dtype))
    scale = max(float(np.abs(gradient).max()) for gradient in gradients[0])
    for theirs, mine in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5 * scale)
    for theirs, mine in zip(*states, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def by_shape(values) -> list[np.ndarray]:
    """Values of the same weights in the same order, whatever order a layer has them in."""
    # The gradient of an embedding comes as slices.
    arrays = [np.asarray(tf.convert_to_tensor(value)) for value in values]
    return sorted(arrays, key=lambda value: (value.shape, round(float(value.sum()), 3)))


@pytest.mark.long
@pytest.mark.parametrize("preset", PRESETS)
def test_partial_unfreezing_moves_only_its_stages(preset, request):
    layer = tfxfer.Backbone(request.getfixturevalue(preset))
    layer.unfreeze(1)
    moved = moved_by_training(layer, PIXELS)
    weights = layer.pretrained.weights
    assert moved and moved <= {weights[i].name for i in layer.stages[-1].weights}


def test_a_backbone_of_kerashub_is_given_as_it_is(keras_preset):
    backbone = keras_hub.models.Backbone.from_preset(keras_preset)
    layer = tfxfer.Backbone(backbone, image_size=64, value_range=(0, 1), trainable=False)
    expected = backbone.predict(PIXELS / 255, verbose=0).mean((1, 2))
    np.testing.assert_allclose(layer(PIXELS / 255), expected, atol=1e-5)


def test_another_size_can_be_asked_for(keras_preset):
    assert tfxfer.Backbone(keras_preset, image_size=32, trainable=False).image_size == (32, 32)


@pytest.mark.long
def test_a_run_takes_a_preset(keras_preset, photos, tmp_path):
    out = str(tmp_path / "run")
    words = ["run", "frozen", "--data", str(photos), "--backbone", keras_preset, "--out", out]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["predict", out, str(photos / "china")], catch_exceptions=False)
    assert done.exit_code == 0 and done.output.count("china") >= 30, done.output


# --- Hugging Face and Kaggle ----------------------------------------------------------------------

LOAD = """
import sys, numpy as np, tfxfer
layer = tfxfer.Backbone(sys.argv[1], trainable=False)
np.save(sys.argv[2], layer(np.load(sys.argv[3])))
"""


class Hub(http.server.SimpleHTTPRequestHandler):
    """Files of a model, with the headers of Hugging Face."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.replace("/resolve/main/", "/"))

    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{abs(hash(self.path))}"')
        super().end_headers()

    def send_error(self, code, message=None, explain=None) -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path, timm_preset):
    """The address of a server that has `timm_preset` as me/resnet18."""
    shutil.copytree(timm_preset, tmp_path / "hub" / "me" / "resnet18")

    def handler(*args):
        return Hub(*args, directory=str(tmp_path / "hub"))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def features_elsewhere(handle: str, folder: Path, **environment: str) -> np.ndarray:
    """Features as another process computes them, which downloads by these settings."""
    np.save(folder / "x.npy", PIXELS)
    done = subprocess.run(
        [python(), "-c", LOAD, handle, folder / "features.npy", folder / "x.npy"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "features.npy")


@pytest.mark.long
def test_a_model_is_fetched_from_hugging_face(hub, timm_preset, tmp_path):
    found = features_elsewhere(
        "hf://me/resnet18",
        tmp_path,
        HF_ENDPOINT=hub,
        HF_HOME=str(tmp_path / "hf"),
        HF_HUB_DISABLE_XET="1",
    )
    expected = tfxfer.Backbone(timm_preset, trainable=False)(PIXELS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_a_preset_in_the_cache_of_kaggle_is_used(keras_preset, tmp_path):
    place = tmp_path / "models" / "me" / "resnet" / "keras" / "small"
    shutil.copytree(keras_preset, place / "1")
    for path in (place / "1").iterdir():
        marker = place / ".complete" / "1" / f"{path.name}.complete"
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    handle = "kaggle://me/resnet/keras/small/1"
    found = features_elsewhere(handle, tmp_path, KAGGLEHUB_CACHE=str(tmp_path))
    expected = tfxfer.Backbone(keras_preset, trainable=False)(PIXELS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# --- errors ---------------------------------------------------------------------------------------


def test_an_unknown_preset_gets_the_nearest_names():
    with pytest.raises(HandleError, match="resnet_18_imagenet"):
        tfxfer.Backbone("kerashub:resnet18_imagenet")


@pytest.mark.parametrize(
    "name, what",
    [("retinanet_resnet50_fpn_coco", "ObjectDetector"), ("gpt2_base_en", "CausalLM")],
)
def test_a_preset_of_another_kind_says_what_it_is_for(name, what):
    with pytest.raises(HandleError, match=what):
        tfxfer.Backbone(f"kerashub:{name}")


def test_a_folder_of_another_kind_says_what_it_is_for(tmp_path):
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=8, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=4
    )
    backbone.save_to_preset(str(tmp_path))
    with pytest.raises(HandleError, match="CausalLM"):
        tfxfer.Backbone(tmp_path)


def test_a_preset_that_does_not_say_how_to_prepare_images_is_refused(keras_preset, tmp_path):
    shutil.copytree(keras_preset, tmp_path / "preset")
    (tmp_path / "preset" / "image_converter.json").unlink()
    with pytest.raises(HandleError, match="preprocess"):
        tfxfer.Backbone(tmp_path / "preset")


def test_a_config_that_names_other_code_is_refused(keras_preset, tmp_path):
    shutil.copytree(keras_preset, tmp_path / "preset")
    config = json.loads((tmp_path / "preset" / "config.json").read_text())
    config["config"]["block_type"] = {
        "module": "keras.utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": "function",
    }
    (tmp_path / "preset" / "config.json").write_text(json.dumps(config))
    with pytest.raises(SavedModelError, match="get_file"):
        tfxfer.Backbone(tmp_path / "preset")


def test_what_a_network_is_for_is_known_before_its_weights_are_fetched(tmp_path):
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=8, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=4
    )
    backbone.save_to_preset(str(tmp_path))
    (tmp_path / "model.weights.h5").unlink()
    with pytest.raises(HandleError, match="CausalLM"):
        tfxfer.Backbone(tmp_path)


def test_the_range_comes_from_the_package_of_the_preset(keras_preset):
    layer = tfxfer.Backbone(keras_preset, trainable=False)
    assert (layer.value_range, layer.range_from) == ((0, 255), "package")


def test_a_preset_in_the_home_folder_may_be_named_by_a_tilde(keras_preset, tmp_path, monkeypatch):
    shutil.copytree(keras_preset, tmp_path / "preset")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tfxfer.Backbone("~/preset", trainable=False).feature_size == 64
    with pytest.raises(HandleError, match="nobody-of-this-name"):
        tfxfer.Backbone("~nobody-of-this-name/preset")


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"module": "keras", "class_name": [], "config": {}}', b"\xff"]
)
def test_a_config_that_is_no_config_is_one_sentence(keras_preset, tmp_path, content):
    shutil.copytree(keras_preset, tmp_path / "preset")
    (tmp_path / "preset" / "config.json").write_bytes(content)
    with pytest.raises(SavedModelError, match=r"config\.json"):
        tfxfer.Backbone(tmp_path / "preset")


def test_a_preset_without_weights_is_refused(keras_preset, tmp_path):
    shutil.copytree(keras_preset, tmp_path / "preset")
    (tmp_path / "preset" / "model.weights.h5").unlink()
    with pytest.raises(HandleError, match="weights"):
        tfxfer.Backbone(tmp_path / "preset")


def test_a_config_that_asks_for_far_more_than_its_weights_is_refused(keras_preset, tmp_path):
    shutil.copytree(keras_preset, tmp_path / "preset")
    path = tmp_path / "preset" / "config.json"
    config = json.loads(path.read_text())
    config["config"]["stackwise_num_filters"] = [64, 20_000]
    path.write_text(json.dumps(config))
    with pytest.raises(HandleError, match="which is not in the file"):
        tfxfer.Backbone(tmp_path / "preset")


def test_a_damaged_preset_is_named(keras_preset, tmp_path):
    shutil.copytree(keras_preset, tmp_path / "preset")
    (tmp_path / "preset" / "model.weights.h5").write_bytes(b"no weights")
    with pytest.raises(SavedModelError, match="model.weights.h5"):
        tfxfer.Backbone(tmp_path / "preset")


@pytest.mark.long
def test_without_network_it_is_one_line(tmp_path):
    nowhere = "http://127.0.0.1:9"
    done = subprocess.run(
        [python(), "-m", "tfxfer", "inspect", "kerashub:resnet_18_imagenet"],
        capture_output=True,
        text=True,
        env={**os.environ, "https_proxy": nowhere, "KAGGLEHUB_CACHE": str(tmp_path)},
    )
    assert done.returncode == 1 and "online" in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr


def test_without_kerashub_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "tfxfer.handles.kerashub")
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(MissingExtraError, match="kerashub"):
        tfxfer.Backbone("hf://me/resnet18")
