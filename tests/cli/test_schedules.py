"""The schedules of a recipe, checked before anything is built."""

import pytest
import torch
from omegaconf import OmegaConf

from hookline.cli.errors import UsageError
from hookline.cli.schedules import check_schedules, schedulers
from hookline.cli.settings import load_settings
from hookline.cli.train import parse_arguments
from hookline.config import LazyCall as L
from hookline.engine.schedule import ConstantParamScheduler, LinearParamScheduler

CONSTANT = L(ConstantParamScheduler)(value=1.0)


def recipe(optimizer, max_iter=10, **nodes):
    cfg = OmegaConf.create({"train": {"max_iter": max_iter}}, flags={"allow_objects": True})
    cfg.optimizer = optimizer
    for name, node in nodes.items():
        cfg[name] = node
    return cfg


SGD = L(torch.optim.SGD)(lr=0.1, momentum=0.9)


def test_good_ones_pass_and_become_hooks():
    cfg = recipe(SGD, lr_multiplier=CONSTANT, momentum_multiplier=CONSTANT, weight_decay_multiplier=CONSTANT)
    check_schedules(cfg)
    keys = ["LRScheduler", "LRScheduler.momentum", "LRScheduler.weight_decay"]
    assert [hook.state_key for hook in schedulers(cfg)] == keys
    check_schedules(recipe(L(torch.optim.AdamW)(lr=0.1), momentum_multiplier=CONSTANT, max_iter=None))


@pytest.mark.parametrize(
    ("optimizer", "nodes", "words"),
    [
        (L(torch.optim.Adagrad)(lr=1), {"momentum_multiplier": CONSTANT}, "Adagrad has no momentum or betas.*lr_decay"),
        (L(torch.optim.Rprop)(lr=0.1), {"weight_decay_multiplier": CONSTANT}, "Rprop has no weight_decay"),
        (L(torch.optim.SGD)(lr=0.1), {"momentum_multiplier": CONSTANT}, r"optimizer\.momentum=0, which stays 0"),
        (SGD, {"lr_multiplier": 3}, "lr_multiplier=3: expected a schedule"),
        (SGD, {"lr_multiplier": L(LinearParamScheduler)(start_value=1, end_value="x")}, "lr_multiplier: can't"),
        (
            SGD,
            {"weight_decay_multiplier": L(LinearParamScheduler)(start_value=1.0, end_value=-1.0)},
            "weight_decay_multiplier: .* gives -0.19.* at iteration 6 of 10",
        ),
    ],
)  # fmt: skip
def test_a_wrong_one_names_its_node(optimizer, nodes, words):
    with pytest.raises(UsageError, match=words):
        check_schedules(recipe(optimizer, **nodes))


def test_a_quick_check_has_the_schedule_of_the_whole_run(tmp_path):
    file = tmp_path / "recipe.py"
    file.write_text(
        "from hookline.config import LazyCall as L\n"
        "from hookline.engine.schedule import ConstantParamScheduler, WarmupParamScheduler\n"
        "model, dataloader, optimizer, train = {}, {}, {}, {'max_iter': 1000}\n"
        "lr_multiplier = L(WarmupParamScheduler)(scheduler=L(ConstantParamScheduler)(value=1.0),\n"
        "    warmup_factor=0.1, warmup_length=500, num_updates='${train.max_iter}')\n"
    )
    cfg = load_settings(parse_arguments(["--config-file", str(file), "--fast-dev-run"]))
    assert (cfg.train.max_iter, cfg.lr_multiplier.num_updates) == (2, 1000)
    longer = ["lr_multiplier.warmup_length=600", "train.max_iter=700"]
    cfg = load_settings(parse_arguments(["--config-file", str(file), "--fast-dev-run", *longer]))
    assert (cfg.train.max_iter, cfg.lr_multiplier.warmup_length, cfg.lr_multiplier.num_updates) == (700, 600, 700)
