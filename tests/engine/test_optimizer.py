import itertools
import math

import pytest
import torch
from torch import nn

from hookline.engine.optimizer import get_default_optimizer_params, get_param_groups_by_name, merge_param_groups


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4))
        self.head = nn.Linear(4, 2)
        self.shared = self.head
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.table = nn.Parameter(torch.zeros(1))


def settings(groups, model):
    """Give the settings of each parameter by name."""
    names = {p: n for n, p in model.named_parameters()}
    return {names[p]: {k: v for k, v in g.items() if k != "params"} for g in groups for p in g["params"]}


@pytest.fixture
def model():
    return Model()


class TestDefault:
    def test_every_trainable_parameter_once(self, model):
        groups = get_default_optimizer_params(model)
        assert len(groups) == 1
        assert list(groups[0]) == ["params"]
        assert set(groups[0]["params"]) == {p for p in model.parameters() if p.requires_grad}
        torch.optim.SGD(groups, lr=0.1)

    def test_norm_and_bias(self, model):
        found = settings(
            get_default_optimizer_params(
                model, base_lr=1.0, weight_decay=0.1, weight_decay_norm=0.0, bias_lr_factor=2.0, weight_decay_bias=0.05
            ),
            model,
        )
        assert found["backbone.0.weight"] == {"lr": 1.0, "weight_decay": 0.1}
        assert found["backbone.0.bias"] == {"lr": 2.0, "weight_decay": 0.05}
        for n in (1, 2, 3):
            assert found[f"backbone.{n}.weight"] == {"lr": 1.0, "weight_decay": 0.0}
            assert found[f"backbone.{n}.bias"]["weight_decay"] == 0.05
        assert "frozen" not in found

    def test_factor_by_name_and_overrides(self, model):
        groups = get_default_optimizer_params(
            model,
            base_lr=1.0,
            lr_factor_func=lambda name: 0.1 if name.startswith("backbone") else 1.0,
            overrides={"table": {"weight_decay": 0.0, "lr": 5.0}},
        )
        found = settings(groups, model)
        assert found["backbone.0.weight"] == {"lr": 0.1}
        assert found["head.weight"] == {"lr": 1.0}
        assert found["table"] == {"lr": 5.0, "weight_decay": 0.0}
        assert len(groups) == 3

    def test_overrides_that_fit_nothing_are_said(self, model, caplog):
        get_default_optimizer_params(model, overrides={"tabl": {"weight_decay": 0.0}})
        assert "overrides['tabl']: no parameter has this last name; nearest: table" in caplog.text

    def test_refusals(self, model):
        with pytest.raises(ValueError, match="bias_lr_factor=-1"):
            get_default_optimizer_params(model, base_lr=1.0, bias_lr_factor=-1)
        with pytest.raises(ValueError, match=r"lr_factor_func\('table'\)=nan"):
            get_default_optimizer_params(model, base_lr=1.0, lr_factor_func=lambda name: math.nan)
        with pytest.raises(ValueError, match="bias_lr_factor"):
            get_default_optimizer_params(model, bias_lr_factor=2.0)
        with pytest.raises(ValueError, match="lr_factor_func"):
            get_default_optimizer_params(model, lr_factor_func=lambda name: 1.0)
        with pytest.raises(ValueError, match="twice"):
            get_default_optimizer_params(model, weight_decay_bias=0.0, overrides={"bias": {"weight_decay": 1.0}})


class TestByName:
    def test_the_longest_fitting_rule_counts_alone(self, model):
        rules = {
            "backbone": {"lr_factor": 0.1},
            "backbone.1": {"decay_factor": 0.0},
            "head": {"lr_factor": 2.0, "momentum": 0.5},
        }
        found = settings(get_param_groups_by_name(model, 1.0, 0.01, rules), model)
        assert found["backbone.0.weight"] == {"lr": 0.1, "weight_decay": 0.01}
        assert found["backbone.1.bias"] == {"lr": 1.0, "weight_decay": 0.0}
        assert found["head.bias"] == {"lr": 2.0, "weight_decay": 0.01, "momentum": 0.5}
        assert found["table"] == {"lr": 1.0, "weight_decay": 0.01}

    def test_a_rule_hidden_by_longer_ones_is_fine(self, model):
        rules = {"tabl": {"lr_factor": 0.1}, "table": {"lr_factor": 0.2}}
        assert settings(get_param_groups_by_name(model, 1.0, 0.0, rules), model)["table"]["lr"] == 0.2

    def test_of_equally_long_rules_the_first_in_the_alphabet_counts(self, model):
        rules = {"weight": {"lr_factor": 0.2}, "linear": {"lr_factor": 0.3}, "head.w": {"lr_factor": 0.5}}
        model.linear = nn.Linear(1, 1)
        found = settings(get_param_groups_by_name(model, 1.0, 0.0, rules), model)
        assert found["linear.weight"]["lr"] == 0.3
        assert found["head.weight"]["lr"] == 0.5

    def test_a_rule_without_a_parameter_is_an_error(self, model):
        with pytest.raises(ValueError, match=r"rules\['backbon0'\].*nearest: backbone"):
            get_param_groups_by_name(model, 1.0, 0.0, {"backbon0": {"lr_factor": 0.1}})
        with pytest.raises(ValueError, match="names begin with: frozen, table, backbone, head"):
            get_param_groups_by_name(model, 1.0, 0.0, {"zzzzzz": {}})

    def test_a_rule_for_frozen_parameters_alone_is_said(self, model, caplog):
        get_param_groups_by_name(model, 1.0, 0.0, {"frozen": {}})
        assert "rules['frozen'] fits only frozen" in caplog.text

    @pytest.mark.parametrize(
        ("rule", "words"),
        [
            ({"lr_factor": -0.1}, r"rules\['head'\].lr_factor=-0.1"),
            ({"lr_mult": math.nan}, r"rules\['head'\].lr_mult=nan"),
            ({"decay_factor": "1"}, r"rules\['head'\].decay_factor='1'"),
            ({"lr_factr": 0.1}, r"rules\['head'\].lr_factr=0.1: did you mean lr_factor"),
            ({"lr_factor": 1, "lr_mult": 1}, "exclude each other"),
            ({"lr_factor": 1, "lr": 1}, "lr_factor and lr exclude each other"),
            ({"decay_mult": 0, "weight_decay": 1}, "decay_mult and weight_decay exclude each other"),
        ],
    )
    def test_a_rule_that_makes_no_sense(self, model, rule, words):
        with pytest.raises(ValueError, match=words):
            get_param_groups_by_name(model, 1.0, 0.0, {"head": rule})


class Kinds(nn.Module):
    """One parameter of every kind that mmengine tells apart."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.depthwise = nn.Conv2d(4, 4, 1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.backbone = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 1), "norm": nn.LayerNorm(4)})
        self.flat = nn.Parameter(torch.zeros(4))
        self.embedding = nn.Parameter(torch.zeros(4, 4))


def mmengine(name, custom, mult):
    """What mmengine's documentation says a parameter of `Kinds` gets, as (lr, decay) factors."""
    for key in sorted(sorted(custom), key=len, reverse=True):
        if key in name:
            return custom[key].get("lr_mult", 1), custom[key].get("decay_mult", 1)
    bias, norm, depthwise = name.endswith("bias"), "norm" in name, name.startswith("depthwise")
    lr = mult.get("bias_lr_mult", 1) if bias and not norm else 1
    if norm and "norm_decay_mult" in mult:
        return lr, mult["norm_decay_mult"]
    if bias and not norm and "bias_decay_mult" in mult:
        return lr, mult["bias_decay_mult"]
    if depthwise and "dwconv_decay_mult" in mult:
        return lr, mult["dwconv_decay_mult"]
    if (bias or norm or name == "flat") and "flat_decay_mult" in mult:
        return lr, mult["flat_decay_mult"]
    return lr, 1


MULTS = {"bias_lr_mult": 2, "bias_decay_mult": 3, "norm_decay_mult": 5, "dwconv_decay_mult": 7, "flat_decay_mult": 11}


@pytest.mark.parametrize("used", list(itertools.product([False, True], repeat=5)))
def test_kinds_as_mmengine_tells_them_apart(used):
    model, mult = Kinds(), {key: MULTS[key] for key, on in zip(MULTS, used, strict=True) if on}
    custom = {"backbone": {"lr_mult": 0.1}, "backbone.norm": {"decay_mult": 0}, "embedding": {"decay_mult": 0}}
    found = settings(get_param_groups_by_name(model, 0.5, 0.25, custom, **mult), model)
    expected = {name: mmengine(name, custom, mult) for name, _ in model.named_parameters()}
    assert {name: (got["lr"] / 0.5, got["weight_decay"] / 0.25) for name, got in found.items()} == expected


def test_a_factor_of_a_kind_that_cannot_be():
    with pytest.raises(ValueError, match="norm_decay_mult=-1"):
        get_param_groups_by_name(Kinds(), 1.0, 0.1, norm_decay_mult=-1)


def test_merging_keeps_the_order_of_first_occurrence():
    a, b, c = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    merged = merge_param_groups([{"params": [a], "lr": 1}, {"params": [b], "lr": 2}, {"params": [c], "lr": 1}])
    assert merged == [{"params": [a, c], "lr": 1}, {"params": [b], "lr": 2}]
