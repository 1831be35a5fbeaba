"""From the recipe's optimizer to one with checked groups, a table in the log, fused where that helps."""

import logging

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from hookline.cli.errors import UsageError
from hookline.cli.optimizer import build_optimizer, check_optimizer
from hookline.config import LazyCall as L
from hookline.engine import fused, get_default_optimizer_params, get_param_groups_by_name


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(4, 3)
        self.backbone.bias.requires_grad_(False)
        self.head = nn.Linear(3, 2)


def recipe(optimizer):
    cfg = OmegaConf.create({"train": {"auto_scale_lr": False}}, flags={"allow_objects": True})
    cfg.optimizer = optimizer
    return cfg


def some(model, which):
    return [p for name, p in model.named_parameters() if which in name]


def twice(model):
    return [{"params": some(model, "head")}, {"params": some(model, "head.bias")}]


def named(model):
    return list(model.named_parameters())


def generator(model):
    return (p for p in model.parameters())


@pytest.fixture(autouse=True)
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hookline"), "propagate", True)
    caplog.set_level(logging.INFO, "hookline")
    return caplog


def test_the_log_says_what_is_in_the_groups(log):
    rules = {"backbone": {"lr_factor": 0.1}}
    params = L(get_param_groups_by_name)(base_lr="${..lr}", weight_decay=1e-4, rules=rules)
    optimizer = build_optimizer(recipe(L(torch.optim.AdamW)(params=params, lr=1e-3)), Model())
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 1e-3]
    assert "Optimizer: AdamW, betas (0.9, 0.999); 20 parameters in 3 tensors" in log.text
    assert "Frozen, left out: 3 parameters in 1 tensors, backbone.bias" in log.text
    assert log.text.count("backbone.weight") == 1


def test_the_table_shows_the_scaled_rate(log):
    cfg = recipe(L(torch.optim.SGD)(params=L(get_default_optimizer_params)(), lr=0.01))
    cfg.train = {"auto_scale_lr": True, "reference_batch_size": 8, "accumulate": 1}
    cfg.dataloader = {"train": {"total_batch_size": 64}}
    assert build_optimizer(cfg, Model()).param_groups[0]["lr"] == 0.08
    assert " 0.08 " in log.text.split("Optimizer: SGD")[1]


def test_without_params_all_trainable_ones_are_one_group():
    model = Model()
    optimizer = build_optimizer(recipe(L(torch.optim.RMSprop)(lr=0.1)), model)
    assert [len(group["params"]) for group in optimizer.param_groups] == [3]


@pytest.mark.parametrize("function", [generator, named])
def test_parameters_instead_of_groups(function):
    optimizer = build_optimizer(recipe(L(torch.optim.SGD)(params=L(function)(), lr=0.1)), Model())
    assert [len(group["params"]) for group in optimizer.param_groups] == [4]


def test_what_no_group_holds_is_named(log):
    build_optimizer(recipe(L(torch.optim.SGD)(params=L(some)(which="head.w"), lr=0.1)), Model())
    assert "leaves out 2 trainable parameters, which will stay as they are: backbone.weight, head.bias" in log.text


def wrong_setting(model):
    return [{"params": some(model, "head"), "lr_factr": 0.1}]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (L(twice)(), r"optimizer\.params: in the parameter groups more than once: head\.bias"),
        (L(some)(which="backbone.bias"), r"optimizer\.params: nothing to train: 1 of the model's 4 .*backbone\.bias"),
        (L(some)(which="nothing"), r"optimizer\.params: nothing to train"),
        (L(wrong_setting)(), r"optimizer\.params: the group of head\.weight, head\.bias has lr_factr=0\.1"),
        (
            L(get_default_optimizer_params)(weight_decay_norm=0.0, weight_decay_bias=-1.0),
            r"optimizer\.params: the group of head\.bias has weight_decay=-1",
        ),
    ],
)
def test_groups_that_cannot_be_trained_with(params, words):
    with pytest.raises(UsageError, match=words):
        build_optimizer(recipe(L(torch.optim.SGD)(params=params, lr=0.1)), Model())


class Own(torch.optim.SGD):
    """A user's optimizer may read more from its groups than torch knows."""


def test_a_users_optimizer_may_have_more_settings():
    optimizer = build_optimizer(recipe(L(Own)(params=L(wrong_setting)(), lr=0.1)), Model())
    assert optimizer.param_groups[0]["lr_factr"] == 0.1


def test_fused_unless_the_recipe_says_otherwise(monkeypatch, log):
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))  # as if it were a GPU; torch has fused kernels for both
    assert build_optimizer(recipe(L(torch.optim.SGD)(lr=0.1)), Model()).param_groups[0]["fused"] is True
    assert "Optimizer: SGD (fused); 20 parameters" in log.text
    for said in ({"fused": False}, {"foreach": True}):
        optimizer = build_optimizer(recipe(L(torch.optim.SGD)(lr=0.1, **said)), Model())
        assert not optimizer.param_groups[0]["fused"]
    assert "fused" not in build_optimizer(recipe(L(torch.optim.RMSprop)(lr=0.1)), Model()).param_groups[0]


def test_on_the_cpu_nothing_is_fused():
    assert not build_optimizer(recipe(L(torch.optim.SGD)(lr=0.1)), Model()).param_groups[0]["fused"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": -0.1}, r"optimizer\.lr=-0.1: expected a finite number of at least 0"),
        ({"lr": float("nan")}, r"optimizer\.lr=nan"),
        ({"lr": "abc"}, r"optimizer\.lr='abc'"),
        ({"lr": None}, r"optimizer\.lr=None"),
        ({"lr": 1, "weight_decay": float("inf")}, r"optimizer\.weight_decay=inf"),
        ({"lr": 1, "momentum": -1}, r"optimizer\.momentum=-1"),
        ({"lr": 1, "betas": [0.9, 1.5]}, r"optimizer\.betas\[1\]=1.5: expected a number in \[0, 1\)"),
    ],
)
def test_a_number_that_cannot_be_is_named(settings, words):
    with pytest.raises(UsageError, match=words):
        check_optimizer(recipe(L(torch.optim.SGD)(**settings)))
    check_optimizer(recipe({}))  # a recipe to evaluate with
