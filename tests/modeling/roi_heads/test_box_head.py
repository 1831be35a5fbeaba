import pytest
import torch

from hookline.modeling.layers import ShapeSpec
from hookline.modeling.roi_heads import FastRCNNConvFCHead


def test_fully_connected_layers_have_the_zoos_keys_and_shape():
    head = FastRCNNConvFCHead(ShapeSpec(channels=4, height=7, width=5), conv_dims=[], fc_dims=[10, 6])
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == {
        "fc1.weight": (10, 140), "fc1.bias": (10,), "fc2.weight": (6, 10), "fc2.bias": (6,),
    }  # fmt: skip
    assert head.output_shape == ShapeSpec(channels=6)
    assert head(torch.randn(3, 4, 7, 5)).shape == (3, 6)
    assert head(torch.randn(0, 4, 7, 5)).shape == (0, 6)


def test_convolutions_come_first_and_keep_the_size():
    head = FastRCNNConvFCHead(ShapeSpec(channels=4, height=7, width=5), conv_dims=[8, 32], fc_dims=[], conv_norm="BN")
    assert head.output_shape == ShapeSpec(channels=32, height=7, width=5)
    assert head(torch.randn(3, 4, 7, 5)).shape == (3, 32, 7, 5)
    assert "conv2.norm.weight" in head.state_dict()
    assert head.conv1.bias is None


def test_a_head_without_layers_is_refused():
    with pytest.raises(ValueError, match="conv_dims and fc_dims are both empty"):
        FastRCNNConvFCHead(ShapeSpec(channels=4, height=7, width=5), conv_dims=[], fc_dims=[])
    with pytest.raises(ValueError, match=r"input_shape.height=0"):
        FastRCNNConvFCHead(ShapeSpec(channels=4), conv_dims=[], fc_dims=[3])
