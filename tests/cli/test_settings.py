"""The settings of `train`: completed, checked, and read."""

import pytest
from omegaconf import OmegaConf

from hookline.cli.errors import UsageError
from hookline.cli.settings import load_settings, precision_of
from hookline.cli.train import parse_arguments

RECIPE = """
from math import inf, nan
from omegaconf import OmegaConf
model = OmegaConf.create({})
dataloader = OmegaConf.create({})
optimizer = OmegaConf.create({})
train = OmegaConf.create(TRAIN)
"""


def load(tmp_path, train, *more):
    file = tmp_path / "recipe.py"
    file.write_text(RECIPE.replace("TRAIN", repr(train)))
    return load_settings(parse_arguments(["--config-file", str(file), *more])).train


def test_a_recipe_says_only_what_differs(tmp_path):
    train = load(tmp_path, {"max_iter": 5, "checkpointer": {"period": 2}})
    assert (train.max_iter, train.seed, train.checkpointer.period, train.checkpointer.max_to_keep) == (5, 0, 2, 100)


def test_epochs_alone_are_enough(tmp_path):
    train = load(tmp_path, {"max_epochs": 3})
    assert (train.max_epochs, train.max_iter) == (3, None)


def test_flags_stand_for_settings_and_overrides_win(tmp_path):
    flags = ["--work-dir", "it's here", "--load-from", "a.pth", "--fast-dev-run", "train.max_iter=3"]
    train = load(tmp_path, {"max_iter": 9}, *flags)
    assert (train.output_dir, train.init_checkpoint, train.max_iter, train.eval_period) == ("it's here", "a.pth", 3, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_itre": 5}, "did you mean train.max_iter"),
        ({"max_iter": 5, "max_epochs": 2}, "give one"),
        ({"max_epochs": -1}, "train.max_epochs=-1"),
        ({"max_epochs": float("inf")}, "train.max_epochs=inf: expected a number above 0"),
        ({"max_epochs": float("nan")}, "train.max_epochs=nan"),
        ({"max_epochs": True}, "train.max_epochs=True"),
        ({"max_epochs": 1e-5}, "train.max_epochs=1e-05: the shortest period is 1 / 10000 epochs"),
        ({"max_iter": 5, "eval_period_epochs": 1e-5}, "train.eval_period_epochs=1e-05: the shortest period is"),
        ({"max_iter": 5, "eval_start_epochs": 1e-5}, "train.eval_start_epochs=1e-05: the shortest period is"),
        ({"max_iter": 5, "seed": "x"}, "train.seed='x'"),
        ({"max_iter": 5, "output_dir": ""}, "train.output_dir=''"),
        ({"checkpointer": {"perod": 2}}, r"did you mean train\.checkpointer\.period"),
        ({"checkpointer": {"max_to_keep": 0}}, r"train\.checkpointer\.max_to_keep=0"),
        ({"precision": "fp61"}, "train.precision='fp61': did you mean fp16"),
        ({"device": "gpu"}, "train.device='gpu'"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, settings, words):
    with pytest.raises(UsageError, match=words):
        load(tmp_path, settings)


def test_a_setting_that_nothing_reads_cannot_be_added(tmp_path):
    with pytest.raises(UsageError, match=r"unknown setting train\.foo"):
        load(tmp_path, {"max_iter": 5}, "+train.foo=1")
    assert load(tmp_path, {"max_iter": 5, "cudnn_benchmark": True}).cudnn_benchmark


def test_detectron2s_switch_for_half_precision():
    cfg = OmegaConf.create({"train": {"amp": {"enabled": True}, "precision": "fp32"}})
    assert precision_of(cfg) == "fp16"
    cfg.train.precision = "bf16"
    with pytest.raises(UsageError, match="set one of them"):
        precision_of(cfg)
