import pytest
import torch
import torchvision

from hookline.modeling.backbone import BasicStem, ResNet
from hookline.modeling.backbone.torchvision_weights import convert_torchvision_resnet


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_converted_weights_give_torchvisions_features(depth, norm):
    peer = getattr(torchvision.models, f"resnet{depth}")().eval()
    for name, buffer in peer.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5) if name.endswith("var") else buffer.normal_(std=0.1)
    net = ResNet(
        BasicStem(norm=norm),
        ResNet.make_default_stages(depth, norm=norm),
        num_classes=1000,
        out_features=["res2", "res3", "res4", "res5", "linear"],
    ).eval()
    net.load_state_dict(convert_torchvision_resnet(peer.state_dict()))
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        got = net(x)
        y = peer.maxpool(peer.relu(peer.bn1(peer.conv1(x))))
        for stage in range(1, 5):
            y = getattr(peer, f"layer{stage}")(y)
            torch.testing.assert_close(got[f"res{stage + 1}"], y, rtol=1e-5, atol=1e-5 * float(y.abs().max()))
        want = peer(x)
        torch.testing.assert_close(got["linear"], want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


def test_keys_get_the_prefix_and_counters_are_dropped():
    converted = convert_torchvision_resnet({
        "conv1.weight": torch.zeros(1), "bn1.num_batches_tracked": torch.tensor(5),
        "layer3.11.bn2.bias": torch.zeros(1), "layer1.0.downsample.1.running_mean": torch.zeros(1),
    }, prefix="backbone.bottom_up.")  # fmt: skip
    assert list(converted) == [
        "backbone.bottom_up.stem.conv1.weight",
        "backbone.bottom_up.res4.11.conv2.norm.bias",
        "backbone.bottom_up.res2.0.shortcut.norm.running_mean",
    ]


def test_the_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"'features.0.weight' is no key of a torchvision ResNet"):
        convert_torchvision_resnet({"features.0.weight": torch.zeros(1)})
