import pytest
import torch
from torch import nn

from hookline.engine.param_groups import check_param_groups, describe_param_groups, left_out


class Model(nn.Module):
    def __init__(self, layers=3):
        super().__init__()
        self.backbone = nn.Linear(4, 3)
        self.backbone.bias.requires_grad_(False)
        self.head = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(layers))


@pytest.fixture
def model():
    return Model()


def one_each(model, **settings):
    return [{"params": [p], "lr": 0.1, "weight_decay": 0.0, **settings} for p in model.parameters() if p.requires_grad]


def test_good_groups_pass(model):
    check_param_groups(one_each(model), model)
    optimizer = torch.optim.SGD(one_each(model), lr=0.1)
    check_param_groups(optimizer.param_groups, model, optimizer.defaults)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": -0.5}, r"group of head\.0\.weight has lr=-0\.5"),
        ({"weight_decay": float("nan")}, r"head\.0\.weight has weight_decay=nan"),
        ({"wieght_decay": 0.0}, "did you mean weight_decay"),
        ({"zzz": 0.0}, "has zzz=0.0, which is no setting of it; there are: lr, momentum"),
    ],
)
def test_a_setting_that_cannot_be_names_the_groups_parameters(model, change, words):
    groups = one_each(model)
    groups[1].update(change)
    with pytest.raises(ValueError, match=words):
        check_param_groups(groups, model, torch.optim.SGD([nn.Parameter(torch.zeros(1))]).defaults)


def test_twice(model):
    groups = [*one_each(model), {"params": [model.head[1].weight]}]
    with pytest.raises(ValueError, match=r"more than once: head\.1\.weight$"):
        check_param_groups(groups, model)


def test_all_frozen(model):
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"5 of the model's 5 parameters are frozen \(backbone\.weight, .* \.\.\.\)"):
        check_param_groups([{"params": list(model.parameters())}], model)


def test_left_out(model):
    assert left_out(one_each(model)[:2], model) == ["head.1.weight", "head.2.weight"]
    assert left_out(one_each(model), model) == []


def test_the_table(model):
    groups = [
        {"params": [model.backbone.weight], "lr": 0.01, "weight_decay": 1e-4},
        {"params": [layer.weight for layer in model.head], "momentum": 0.5},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.0)
    title, headers, _, first, second, frozen = describe_param_groups(optimizer, model).splitlines()
    assert title == "Optimizer: SGD, momentum 0.9; 15 parameters in 4 tensors"
    assert headers.split() == ["group", "parameters", "tensors", "lr", "weight", "decay", "momentum", "of"]
    assert first.split() == ["0", "12", "1", "0.01", "0.0001", "0.9", "backbone.weight"]
    assert second.split() == ["1", "3", "3", "0.1", "0", "0.5", "head.0.weight,", "head.1.weight", "..."]
    assert frozen == "Frozen, left out: 3 parameters in 1 tensors, backbone.bias"


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"radius": 1.0})


def test_the_table_of_an_optimizer_without_a_rate(model):
    row = describe_param_groups(WithoutRate([model.backbone.weight]), model).splitlines()[3]
    assert row.split() == ["0", "12", "1", "backbone.weight"]


def test_the_table_of_many_groups_stays_short():
    model = Model(300)
    groups = [{"params": [layer.weight], "lr": 0.001 * (1 + n)} for n, layer in enumerate(model.head)]
    lines = describe_param_groups(torch.optim.SGD(groups), model).splitlines()
    assert len(lines) == 35
    assert lines[-2].split() == ["270", "more", "270", "270", "0.031", "to", "0.3"]
