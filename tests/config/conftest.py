"""Recipes to test with."""

import textwrap

import pytest


@pytest.fixture
def write(tmp_path):
    """Write a file below the test's folder and give its path."""

    def write_file(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
        return path

    return write_file


TRAIN = """
train = dict(
    output_dir="./output",
    max_iter=90000,
    seed=7,
    ddp=dict(broadcast=False),
)
"""
MODEL = """
from config_parts import FPN, Detector, Heads, ResNet, Spec, Stem
from hookline.config import LazyCall as L
from ..data.constants import constants

model = L(Detector)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(Stem)(in_channels=3, out_channels=64),
            stages=L(ResNet.make_default_stages)(depth=50, norm="FrozenBN"),
            out_features=["res2", "res3"],
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
    ),
    roi_heads=L(Heads)(
        num_classes=80,
        box_pooler=L(Heads)(scales=(1.0 / 4, 1.0 / 8)),
        box_head=L(Heads)(input_shape=Spec(channels=256, height=7)),
        box_predictor=L(Heads)(num_classes="${..num_classes}"),
    ),
    pixel_mean=constants.mean,
)
"""
DATA = """
from omegaconf import OmegaConf
from config_parts import Heads, Stem
from hookline.config import LazyCall as L

dataloader = OmegaConf.create()
dataloader.train = L(Heads)(
    dataset=L(Heads)(names="things_train"), augmentations=[L(Stem)(in_channels=1)], seed="${train.seed}"
)
dataloader.test = L(Heads)(dataset=L(Heads)(names="things_val"), num_workers=4)
dataloader.evaluator = L(Heads)(dataset_name="${..test.dataset.names}")
"""
CASCADE = """
from ..common.data.things import dataloader
from ..common.models.mask_rcnn import model
from ..common.train import train
from config_parts import CascadeHeads, Spec, Stem
from hookline.config import LazyCall as L
import torch

[model.roi_heads.pop(k) for k in ["box_head", "box_predictor"]]
model.roi_heads.update(
    _target_=CascadeHeads,
    box_heads=[L(Stem)(in_channels=k) for k in range(3)],
    predictors=[L(Stem)(in_channels="${...num_classes}", out_channels=w) for w in (10, 20)],
)
model.roi_heads.num_classes = 1
model.backbone.bottom_up.stages.depth = 101
[model.backbone.norm, model.backbone.out_channels] = "GN", 128
dataloader.train.update(**dict(num_workers=2, mapper=dict(is_train=True)))
train["max_iter"] //= 2
train.ddp.broadcast = True
optimizer = L(torch.optim.SGD)(params=L(dict)(weight_decay_norm=0.0), lr=0.02, momentum=0.9)
"""


@pytest.fixture
def cascade(write):
    """A recipe in Detectron2's manner: parts in common/, changed by updates, item and attribute assignments."""
    write("common/train.py", TRAIN)
    write("common/data/constants.py", "constants = dict(mean=[1.0, 2.0, 3.0])\n")
    write("common/models/mask_rcnn.py", MODEL)
    write("common/data/things.py", DATA)
    return write("things/cascade.py", CASCADE)
