from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from hookline.cli.gradients import gradient_clipper
from hookline.cli.plot_schedule import run, schedule_curves
from hookline.cli.schedules import schedulers
from hookline.cli.settings import load_settings
from hookline.cli.train import parse_arguments
from hookline.config import instantiate
from hookline.engine import SimpleTrainer
from hookline.engine.hooks import CallbackHook, EvalHook, PeriodicCheckpointer

# The settings of mmdet's example, in our words; a small model takes the place of its detector.
MMDET = """
import torch
from collections import OrderedDict
from hookline.config import LazyCall as L
from hookline.configs.common.train import train
from hookline.engine import get_param_groups_by_name
from hookline.engine.schedule import MultiStepParamScheduler

STEPS = 3  # an epoch
model = L(torch.nn.ModuleDict)(modules=dict(backbone=L(torch.nn.Linear)(in_features=2, out_features=2),
                                            bbox_head=L(torch.nn.Linear)(in_features=2, out_features=1)))
dataloader = dict(train=None, test=None, evaluator=None)
optimizer = L(torch.optim.AdamW)(
    params=L(get_param_groups_by_name)(base_lr="${..lr}", weight_decay="${..weight_decay}",
                                       rules=dict(backbone=dict(lr_factor=0.1))),
    lr=1e-4,
    weight_decay=1e-4,
)
lr_multiplier = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[100], num_updates=150)
train.grad_clip = dict(max_norm=0.1, norm_type=2)
train.max_iter = 150 * STEPS
train.eval_period = 5 * STEPS
train.checkpointer.period = 20 * STEPS
train.log_period = 50
"""


class Detector(torch.nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, batch):
        return {"loss": 100 * self.parts["bbox_head"](self.parts["backbone"](batch)).square().mean()}


@pytest.fixture
def mmdet(tmp_path):
    path = tmp_path / "mmdet_example.py"
    path.write_text(MMDET)
    return str(path)


def load(path, *overrides):
    return load_settings(parse_arguments(["--config-file", path, *overrides]))


def test_mmdets_example_has_its_rates_in_every_step(mmdet):
    cfg = load(mmdet)
    parts = instantiate(cfg.model)
    optimizer = instantiate(cfg.optimizer, params=instantiate(cfg.optimizer.params, model=parts))
    rates, norms, evaluated, saved = [], [], [], []

    class Clip(type(gradient_clipper(cfg.train.grad_clip))):
        def __call__(self, parameters):
            before = super().__call__(parameters)
            norms.append(float(torch.stack([p.grad.norm() for p in parameters]).norm()))
            return before

    loader = [torch.ones(4, 2)] * cfg.train.max_iter
    trainer = SimpleTrainer(Detector(parts), loader, optimizer, 50, grad_clip=Clip(**cfg.train.grad_clip))
    checkpointer = SimpleNamespace(save=lambda name, iteration: saved.append((name, iteration)))
    note = CallbackHook(after_backward=lambda t: rates.append([g["lr"] for g in t.optimizer.param_groups]))
    evaluation = EvalHook(cfg.train.eval_period, lambda: evaluated.append(trainer.iter))
    trainer.register_hooks(
        [*schedulers(cfg), note, PeriodicCheckpointer(checkpointer, cfg.train.checkpointer.period), evaluation]
    )
    trainer.train(0, cfg.train.max_iter)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4, 1e-4]
    expected = [[1e-5, 1e-4]] * 300 + [[1e-6, 1e-5]] * 150
    assert rates == [pytest.approx(pair, abs=1e-18) for pair in expected]
    assert max(norms) <= 0.1 + 1e-6
    assert evaluated == [*range(14, 449, 15), 450]
    assert [iteration for _, iteration in saved] == [*range(59, 450, 60), 449]


def test_the_curves_are_what_the_hook_sets(mmdet):
    length, curves = schedule_curves(load(mmdet))
    assert length == 450
    assert set(curves) == {"lr"}
    slow, fast = curves["lr"].values()
    assert slow == pytest.approx([1e-5] * 300 + [1e-6] * 150, abs=1e-18)
    assert fast == pytest.approx([1e-4] * 300 + [1e-5] * 150, abs=1e-18)
    assert next(iter(curves["lr"])) == "group 0: 1e-05, 6 parameters (backbone.weight, backbone.bias)"


def test_momentum_is_drawn_and_driven_too(mmdet, tmp_path, capsys):
    cyclic = "+momentum_multiplier={_target_: hookline.engine.schedule.CyclicParamScheduler, target_ratio: [0.5, 1]}"
    out = tmp_path / "pictures" / "two.png"
    assert run([mmdet, cyclic, "--out", str(out)]) == 0
    assert "lr, momentum over 450 iterations" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.size == (960, 2 * 320 + 3 * 14)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
        assert {(31, 119, 180), (214, 39, 40)} <= colours
    _, curves = schedule_curves(load(mmdet, cyclic))
    (values,) = curves["momentum"].values()
    assert values[0] == pytest.approx(0.9)
    assert min(values) == pytest.approx(0.45)
    assert [hook.state_key for hook in schedulers(load(mmdet, cyclic))] == ["LRScheduler", "LRScheduler.momentum"]


def test_a_run_in_epochs_is_drawn_without_its_data(mmdet, tmp_path, capsys):
    assert run([mmdet, "train.max_iter=null", "train.max_epochs=150", "--out", str(tmp_path / "epochs.png")]) == 0
    assert "lr over 150 epochs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lr_multiplier.milestones=[160]", "milestones=[160]"),
        ("lr_multiplier.values=[1.0, -1.0]", "values[1]=-1.0"),
        ("optimizer.lr=nan", "optimizer.lr=nan: expected"),
        ("lr_multiplier=null", "no schedule to draw"),
        ("lr_multiplier.milestone=[1]", "milestones"),
    ],
)
def test_wrong_schedules_end_with_2_and_name_the_key(mmdet, tmp_path, capsys, override, words):
    assert run([mmdet, override, "--out", str(tmp_path / "none.png")]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "none.png").exists()
