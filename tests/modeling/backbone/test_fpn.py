import pytest
import torch
from torch.nn import functional as F

from hookline.modeling.backbone import FPN, Backbone, LastLevelMaxPool, LastLevelP6P7
from hookline.modeling.layers import ShapeSpec


class _Pyramid(Backbone):
    """A bottom-up network whose features are given, not computed."""

    def __init__(self, channels=(4, 6, 8), strides=(4, 8, 16)):
        super().__init__()
        names = [f"res{index}" for index in range(2, 2 + len(strides))]
        self._out_features = names
        self._out_feature_channels = dict(zip(names, channels, strict=True))
        self._out_feature_strides = dict(zip(names, strides, strict=True))

    def forward(self, x):
        generator = torch.Generator().manual_seed(1)
        sizes = {
            name: [-(-side // stride) for side in x.shape[-2:]] for name, stride in self._out_feature_strides.items()
        }
        return {
            name: torch.randn(len(x), channels, *sizes[name], generator=generator)
            for name, channels in self._out_feature_channels.items()
        }


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
@pytest.mark.parametrize("norm", ["", "BN"])
def test_levels_equal_a_computation_by_hand(fuse_type, norm):
    bottom_up = _Pyramid()
    top_block = LastLevelMaxPool()
    top_block.in_feature = "p4"
    fpn = FPN(bottom_up, ["res2", "res3", "res4"], 5, norm, top_block, fuse_type)
    x = torch.randn(2, 3, 64, 32)
    got, inputs = fpn(x), bottom_up(x)
    inner = None
    for level in (4, 3, 2):
        lateral = getattr(fpn, f"fpn_lateral{level}")(inputs[f"res{level}"])
        if inner is not None:
            lateral = lateral + inner.repeat_interleave(2, -1).repeat_interleave(2, -2)
            lateral = lateral / 2 if fuse_type == "avg" else lateral
        inner = lateral
        torch.testing.assert_close(got[f"p{level}"], getattr(fpn, f"fpn_output{level}")(inner))
    torch.testing.assert_close(got["p5"], got["p4"][..., ::2, ::2])
    assert list(got) == ["p2", "p3", "p4", "p5"]
    assert (fpn.fpn_lateral2.bias is None) == (norm == "BN")


def test_output_shape_strides_and_divisibility():
    fpn = FPN(_Pyramid(), ["res3", "res4"], 5, top_block=LastLevelP6P7(8, 5, "res4"), square_pad=96)
    assert fpn.output_shape() == {f"p{level}": ShapeSpec(channels=5, stride=2**level) for level in (3, 4, 5, 6)}
    assert fpn.size_divisibility == 16
    assert fpn.padding_constraints == {"square_size": 96}
    features = fpn(torch.randn(1, 3, 96, 96))
    assert [tuple(features[f"p{level}"].shape[-2:]) for level in (3, 4, 5, 6)] == [(12, 12), (6, 6), (3, 3), (2, 2)]


def test_p6_and_p7_read_the_feature_they_name():
    fpn = FPN(_Pyramid(), ["res3", "res4"], 5, top_block=LastLevelP6P7(5, 5, "p4"))
    x = torch.randn(1, 3, 64, 64)
    got = fpn(x)
    torch.testing.assert_close(got["p5"], fpn.top_block.p6(got["p4"]))
    torch.testing.assert_close(got["p6"], fpn.top_block.p7(F.relu(got["p5"])))


def test_sizes_that_are_not_divisible_work_too():
    features = FPN(_Pyramid(), ["res2", "res3", "res4"], 5)(torch.randn(1, 3, 50, 70))
    assert features["p2"].shape[-2:] == (13, 18)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"in_features": ["res2", "res9"]}, "in_features: feature='res9'"),
    ({"in_features": ["res2", "res4"]}, r"strides \[4, 16\]"),
    ({"in_features": []}, "strides"),
    ({"fuse_type": "mean"}, "fuse_type='mean'.*'avg'"),
    ({"out_channels": 0}, "out_channels=0"),
    ({"top_block": LastLevelMaxPool()}, "top_block.in_feature='p5'.*'p3'"),
])  # fmt: skip
def test_wrong_arguments_are_refused_by_name(arguments, words):
    arguments = {"in_features": ["res2", "res3"], "out_channels": 4, **arguments}
    with pytest.raises(ValueError, match=words):
        FPN(_Pyramid(), **arguments)
