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

    def test_refusals(self, model):
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
        get_param_groups_by_name(model, 1.0, 0.0, {"tabl": {"lr_factor": 0.1}, "table": {"lr_factor": 0.2}})

    def test_a_rule_without_a_parameter_is_an_error(self, model):
        with pytest.raises(ValueError, match=r"'backbon0'.*backbone"):
            get_param_groups_by_name(model, 1.0, 0.0, {"backbon0": {"lr_factor": 0.1}})
        with pytest.raises(ValueError, match="frozen"):
            get_param_groups_by_name(model, 1.0, 0.0, {"frozen": {}})


def test_merging_keeps_the_order_of_first_occurrence():
    a, b, c = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    merged = merge_param_groups([{"params": [a], "lr": 1}, {"params": [b], "lr": 2}, {"params": [c], "lr": 1}])
    assert merged == [{"params": [a, c], "lr": 1}, {"params": [b], "lr": 2}]
