"""Weights of other layouts, and of a part of a model."""

import pytest
import torch

from hookline.cli.errors import UsageError
from hookline.cli.weights import from_torchvision, load_for_evaluation
from hookline.engine import Checkpointer, CheckpointError
from hookline.modeling.backbone import BasicStem, ResNet


def test_torchvision_weights_go_into_a_backbone(tmp_path):
    import torchvision

    source = torchvision.models.resnet18(weights=None)
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    backbone = ResNet(BasicStem(norm="BN"), ResNet.make_default_stages(18, norm="BN"), out_features=["res5"])
    model = torch.nn.Module()
    model.backbone = torch.nn.Module()
    model.backbone.bottom_up = backbone
    checkpointer = Checkpointer(model, save_to_disk=False, converters=[from_torchvision])
    checkpointer.load(tmp_path / "resnet18.pth")
    assert torch.equal(backbone.res5[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.equal(backbone.stem.conv1.norm.running_var, source.bn1.running_var)


def test_other_weights_are_left_alone():
    state = {"backbone.weight": torch.ones(1)}
    assert from_torchvision(state) is state


def test_an_evaluation_with_a_part_of_the_weights_is_refused(tmp_path):
    torch.save({"model": {"0.weight": torch.ones(2, 2)}}, tmp_path / "part.pth")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"0\.bias"):
        load_for_evaluation(model, str(tmp_path / "part.pth"))
    with pytest.raises(UsageError, match="init_checkpoint"):
        load_for_evaluation(model, "")
