"""Our recipe of Mask R-CNN, in the arguments of Detectron2's lazy configs, builds exactly the zoo's keys."""

from pathlib import Path

import pytest
import torch

from hookline import configs
from hookline.config import LazyConfig, instantiate

RECIPE = str(Path(configs.__path__[0]) / "common" / "models" / "mask_rcnn_fpn.py")


def _conv(name, out_channels, in_channels, kernel, norm):
    shapes = {f"{name}.weight": (out_channels, in_channels, kernel, kernel)}
    parts = [f"norm.{part}" for part in ("weight", "bias", "running_mean", "running_var")] if norm else ["bias"]
    return {**shapes, **{f"{name}.{part}": (out_channels,) for part in parts}}


def _zoo_shapes(blocks=(3, 4, 6, 3), num_classes=80):
    bottom_up = "backbone.bottom_up"
    shapes = _conv(f"{bottom_up}.stem.conv1", 64, 3, 7, True)
    in_channels = 64
    for stage, count in enumerate(blocks, start=2):
        width, out_channels = 64 * 2 ** (stage - 2), 256 * 2 ** (stage - 2)
        for index in range(count):
            block = f"{bottom_up}.res{stage}.{index}"
            if index == 0:
                shapes |= _conv(f"{block}.shortcut", out_channels, in_channels, 1, True)
            shapes |= _conv(f"{block}.conv1", width, in_channels, 1, True)
            shapes |= _conv(f"{block}.conv2", width, width, 3, True)
            shapes |= _conv(f"{block}.conv3", out_channels, width, 1, True)
            in_channels = out_channels
        shapes |= _conv(f"backbone.fpn_lateral{stage}", 256, out_channels, 1, False)
        shapes |= _conv(f"backbone.fpn_output{stage}", 256, 256, 3, False)
    rpn = "proposal_generator.rpn_head"
    shapes |= _conv(f"{rpn}.conv", 256, 256, 3, False)
    shapes |= _conv(f"{rpn}.objectness_logits", 3, 256, 1, False)
    shapes |= _conv(f"{rpn}.anchor_deltas", 12, 256, 1, False)
    for name, rows, columns in (
        ("box_head.fc1", 1024, 256 * 7 * 7), ("box_head.fc2", 1024, 1024),
        ("box_predictor.cls_score", num_classes + 1, 1024), ("box_predictor.bbox_pred", 4 * num_classes, 1024),
    ):  # fmt: skip
        shapes |= {f"roi_heads.{name}.weight": (rows, columns), f"roi_heads.{name}.bias": (rows,)}
    for index in range(1, 5):
        shapes |= _conv(f"roi_heads.mask_head.mask_fcn{index}", 256, 256, 3, False)
    shapes |= _conv("roi_heads.mask_head.deconv", 256, 256, 2, False)
    shapes |= _conv("roi_heads.mask_head.predictor", num_classes, 256, 1, False)
    return shapes


@pytest.fixture(scope="module")
def model():
    return instantiate(LazyConfig.load(RECIPE).model)


def test_keys_and_shapes_are_the_zoos(model):
    got = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert got == _zoo_shapes()
    assert len(got) == 307


def test_what_follows_from_the_recipe_is_no_parameter_and_not_in_the_checkpoint(model):
    assert "pixel_mean" not in model.state_dict()
    assert model.pixel_mean.flatten().tolist() == pytest.approx([103.53, 116.28, 123.675])
    assert model.device == torch.device("cpu")
    assert sum(parameter.numel() for parameter in model.parameters()) == 44_343_216
    assert model.input_format == "BGR"


def test_classes_are_found_where_the_preflight_check_looks(model):
    assert model.roi_heads.num_classes == 80


def test_overrides_reach_every_head():
    cfg = LazyConfig.load(RECIPE)
    cfg = LazyConfig.apply_overrides(
        cfg,
        [
            "model.roi_heads.num_classes=1",
            "model.backbone.bottom_up.stages.depth=101",
            "model.backbone.bottom_up.freeze_at=2",
        ],
    )
    model = instantiate(cfg.model)
    got = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert got == _zoo_shapes((3, 4, 23, 3), num_classes=1)
    trained = {name.split(".")[2] for name, p in model.backbone.named_parameters(prefix="backbone") if p.requires_grad}
    assert "res3" in trained
    assert not trained & {"stem", "res2"}
