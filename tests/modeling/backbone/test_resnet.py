import pytest
import torch

from hookline.modeling.backbone import BasicBlock, BasicStem, BottleneckBlock, ResNet
from hookline.modeling.layers import FrozenBatchNorm2d


def _resnet(depth=18, **kwargs):
    return ResNet(BasicStem(norm="BN"), ResNet.make_default_stages(depth, norm="BN"), **kwargs)


@pytest.mark.parametrize(("depth", "blocks", "channels"), [
    (18, [2, 2, 2, 2], 64), (34, [3, 4, 6, 3], 64), (50, [3, 4, 6, 3], 256),
    (101, [3, 4, 23, 3], 256), (152, [3, 8, 36, 3], 256),
])  # fmt: skip
def test_default_stages_have_the_papers_blocks_and_channels(depth, blocks, channels):
    stages = ResNet.make_default_stages(depth, norm="")
    assert [len(stage) for stage in stages] == blocks
    assert [stage[-1].out_channels for stage in stages] == [channels * 2**i for i in range(4)]
    assert [stage[0].stride for stage in stages] == [1, 2, 2, 2]
    assert isinstance(stages[0][0], BasicBlock if depth < 50 else BottleneckBlock)


def test_features_have_the_shapes_that_output_shape_says():
    net = _resnet(out_features=["stem", "res2", "res3", "res5"]).eval()
    features = net(torch.randn(2, 3, 64, 96))
    shapes = net.output_shape()
    assert list(features) == list(shapes) == ["stem", "res2", "res3", "res5"]
    for name, feature in features.items():
        assert feature.shape == (2, shapes[name].channels, 64 // shapes[name].stride, 96 // shapes[name].stride)


def test_stages_behind_the_last_feature_are_left_out():
    net = _resnet(out_features=["res3"])
    assert not any(name.startswith(("res4", "res5")) for name, _ in net.named_parameters())


def test_the_last_stage_is_the_default_feature_and_a_classifier_has_its_own():
    assert list(_resnet()(torch.randn(1, 3, 64, 64))) == ["res5"]
    net = _resnet(num_classes=7)
    assert net(torch.randn(1, 3, 64, 64))["linear"].shape == (1, 7)
    assert net.output_shape()["linear"].channels == 7


def test_stride_in_1x1_decides_which_convolution_strides():
    for first, strides in ((True, [(2, 2), (1, 1)]), (False, [(1, 1), (2, 2)])):
        block = BottleneckBlock(8, 16, bottleneck_channels=4, stride=2, stride_in_1x1=first)
        assert [block.conv1.stride, block.conv2.stride] == strides


def test_a_dilated_last_stage_keeps_the_resolution_of_the_one_before():
    stages = ResNet.make_default_stages(50, norm="BN", res5_dilation=2)
    net = ResNet(BasicStem(), stages, out_features=["res4", "res5"])
    features = net(torch.randn(1, 3, 64, 64))
    assert features["res4"].shape[-2:] == features["res5"].shape[-2:] == (4, 4)
    assert net.output_shape()["res5"].stride == 16
    assert all(block.conv2.dilation == (2, 2) for block in net.res5)


def test_groups_make_a_resnext():
    stages = ResNet.make_default_stages(50, norm="BN", num_groups=32, bottleneck_channels=128)
    assert stages[0][0].conv2.weight.shape == (128, 4, 3, 3)


def test_a_block_with_a_stride_has_a_shortcut_even_if_the_channels_stay():
    assert BasicBlock(8, 8, stride=2, norm="BN")(torch.randn(1, 8, 6, 6)).shape == (1, 8, 3, 3)
    assert BasicBlock(8, 8, norm="BN").shortcut is None


@pytest.mark.parametrize(("freeze_at", "frozen"), [(0, ()), (1, ("stem",)), (3, ("stem", "res2", "res3"))])
def test_freezing_stops_weights_and_batch_norms(freeze_at, frozen):
    net = _resnet(out_features=["res5"], freeze_at=freeze_at)
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad == (not name.startswith(frozen)) if frozen else parameter.requires_grad
    for name, module in net.named_modules():
        if name.endswith("norm"):
            assert isinstance(module, FrozenBatchNorm2d) == bool(frozen and name.startswith(frozen))


def test_a_stage_takes_arguments_block_by_block():
    blocks = ResNet.make_stage(
        BottleneckBlock, 3, in_channels=8, out_channels=16, bottleneck_channels=4, stride_per_block=[2, 1, 1],
        dilation_per_block=[1, 2, 4],
    )  # fmt: skip
    assert [block.stride for block in blocks] == [2, 1, 1]
    assert [block.conv2.dilation[0] for block in blocks] == [1, 2, 4]
    assert [block.in_channels for block in blocks] == [8, 16, 16]


@pytest.mark.parametrize(("build", "words"), [
    (lambda: ResNet.make_default_stages(51), "depth=51.*valid: 18, 34, 50"),
    (lambda: _resnet(out_features=["res6"]), "out_features='res6'.*'res2'"),
    (lambda: ResNet(BasicStem(), []), "stages: 0 given"),
    (lambda: _resnet(freeze_at=7), "freeze_at=7, but there are the stem and 4 stages"),
    (lambda: ResNet.make_stage(BasicBlock, 2, in_channels=4, out_channels=4, stride_per_block=[1]),
     "stride_per_block has 1 values for num_blocks=2"),
    (lambda: ResNet.make_stage(torch.nn.Conv2d, 2, in_channels=4, out_channels=4), "block_class"),
    (lambda: _resnet()(torch.randn(3, 32, 32)), r"\(B, C, H, W\)"),
])  # fmt: skip
def test_wrong_arguments_are_refused_by_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()
