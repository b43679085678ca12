"""Stages: the cuts and blocks of a graph."""

import numpy as np
import pytest
from savedmodels import save_reusable, tiny_network, vision_transformer

from tfxfer import savedmodel
from tfxfer.savedmodel import kept, stages


@pytest.fixture(scope="module")
def tiny(tiny_savedmodel):
    return savedmodel.read(tiny_savedmodel)


def test_stages_carry_the_names_of_the_blocks(tiny):
    assert [stage.name for stage in tiny.stages] == ["block0", "block1", "block2"]


def test_every_weight_on_the_way_is_in_exactly_one_stage(tiny):
    owned = [i for stage in tiny.stages for i in stage.weights]
    assert sorted(owned) == sorted(tiny.inference.weights)


def test_a_stage_from_a_file_may_have_only_weights_that_are_there():
    assert kept.stage_of("a", "x:0", ["weight_2"], count=3).weights == (2,)
    with pytest.raises(ValueError, match="of 3"):
        kept.stage_of("a", "x:0", ["weight_3"], count=3)


def test_what_follows_the_last_block_belongs_to_it(tiny):
    names = [tiny.weights[i].name for i in tiny.stages[-1].weights]
    assert any("head_conv" in name or "conv2d" in name for name in names) or len(names) == 7
    assert tiny.stages[-1].cut == tiny.last_map


@pytest.mark.long
def test_unnamed_blocks_end_where_branches_join(tmp_path):
    found = savedmodel.read(save_reusable(vision_transformer(), tmp_path / "vit")).stages
    assert [stage.name for stage in found] == [
        f"{part}_add_{i}" for i in range(3) for part in ("attend", "mlp")
    ]


@pytest.mark.long
def test_stages_are_the_same_in_another_reading(tmp_path):
    folder = save_reusable(tiny_network(), tmp_path / "tiny")
    assert savedmodel.read(folder).stages == savedmodel.read(folder).stages


@pytest.mark.parametrize(
    ("node", "block"),
    [
        ("network/block3/expand/Conv2D", "network/block3"),
        ("resnet50_1/conv2_block1_out_1/Relu", "resnet50_1/conv2_block1"),
        (
            "convnext/convnext_tiny_stage_0_block_2_identity_1/Identity",
            "convnext/convnext_tiny_stage_0_block_2",
        ),
        ("MobileNetV3/expanded_conv_3_add_1/Add", "MobileNetV3/expanded_conv_3"),
        ("net/predictions/BiasAdd", None),
    ],
)
def test_a_node_tells_its_block(node, block):
    assert stages.block_name(node) == block


def test_the_last_map_has_the_output_as_its_mean(tiny):
    shapes = tiny.stage_shapes
    assert shapes[-1] == (8, 8, 16) and tiny.features == 16
    call = savedmodel.function(
        tiny.inference, tiny.weights, tiny.input_shape, taps=(tiny.last_map,)
    )
    plain = savedmodel.function(tiny.inference, tiny.weights, tiny.input_shape)
    x = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    values = [tiny.weights[i].value for i in tiny.inference.weights]
    np.testing.assert_allclose(call(x, *values)[0][:, :16], plain(x, *values)[0], atol=1e-6)
