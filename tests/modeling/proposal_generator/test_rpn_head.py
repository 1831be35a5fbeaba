import pytest
import torch

from hookline.modeling.proposal_generator import StandardRPNHead


def test_one_convolution_has_the_zoos_keys():
    head = StandardRPNHead(in_channels=8, num_anchors=3)
    names = [f"{part}.{kind}" for part in ("conv", "objectness_logits", "anchor_deltas") for kind in ("weight", "bias")]
    assert list(head.state_dict()) == names
    assert head.conv.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert head.conv.bias.abs().sum() == 0


def test_several_convolutions_are_numbered():
    head = StandardRPNHead(in_channels=8, num_anchors=3, conv_dims=[-1, 16])
    assert head.conv.conv0.weight.shape == (8, 8, 3, 3)
    assert head.conv.conv1.weight.shape == (16, 8, 3, 3)
    scores, deltas = head([torch.randn(2, 8, 5, 6), torch.randn(2, 8, 3, 3)])
    assert [tuple(score.shape) for score in scores] == [(2, 3, 5, 6), (2, 3, 3, 3)]
    assert [tuple(delta.shape) for delta in deltas] == [(2, 12, 5, 6), (2, 12, 3, 3)]


@pytest.mark.parametrize("conv_dims", [[], [0], [-2]])
def test_wrong_widths_are_refused(conv_dims):
    with pytest.raises(ValueError, match="conv_dims="):
        StandardRPNHead(in_channels=8, num_anchors=3, conv_dims=conv_dims)
