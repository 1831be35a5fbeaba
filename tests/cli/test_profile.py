"""`hookline profile`: what it prints and leaves, on a small model."""

import gzip
import json
import re
import sys

import pytest
import torch

from hookline.cli.main import main
from hookline.cli.profiled import Schedule

PARTS = """
import time
import torch
from torch import nn
from hookline.engine import HookBase

SEEN = {}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(300, 300)

    def forward(self, batch):
        SEEN.update(matmul=torch.get_float32_matmul_precision(), compiled=self.layer._compiled_call_impl is not None)
        return {"loss": self.layer(batch[0]["x"]).square().mean()}


class SlowLoader:
    batch_size = 4

    def __iter__(self):
        while True:
            time.sleep(0.02)
            yield [{"x": torch.ones(500, 300)}]
"""

RECIPE = """
import torch
from profiled_parts import Net, SlowLoader
from hookline.config import LazyCall as L
from hookline.configs.common.train import train
from hookline.engine import get_default_optimizer_params

model = L(Net)()
dataloader = dict(train=L(SlowLoader)(), test=None, evaluator=None)
optimizer = L(torch.optim.SGD)(params=L(get_default_optimizer_params)(), lr=0.01)
train.device = "cpu"
train.ema = dict(half_life=3)
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    (tmp_path / "profiled_parts.py").write_text(PARTS)
    (tmp_path / "recipe.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield str(tmp_path / "recipe.py")
    sys.modules.pop("profiled_parts", None)


def test_the_shares_the_operators_and_the_trace(recipe, tmp_path, capsys):
    out = tmp_path / "profile"
    assert main(["profile", recipe, "--out", str(out), "--wait", "7", "--warmup", "1", "--steps", "2"]) == 0
    text = capsys.readouterr().out
    assert "recipe.py on cpu, fp32: means over 4 steps" in text
    cells = dict(re.findall(r"^([\w ,-]+?)\s+([\d.]+)\s+[\d.]+$", text, re.MULTILINE))
    step, data = float(cells["a step"]), float(cells["waiting for data"])
    assert 20.0 <= data <= step
    parts = data + float(cells["forward, backward, optimizer"]) + float(cells["hooks"])
    assert parts == pytest.approx(step, abs=0.05)
    assert "- EMAHook" in cells
    assert "aten::addmm" in text
    assert "Most memory: " in text
    with gzip.open(out / "trace.json.gz") as file:
        trace = json.load(file)
    names = [event.get("name") for event in trace["traceEvents"]]
    assert sum(name == "hook EMAHook.after_step" for name in names) == 2
    assert "step: forward and backward" in names
    assert not list(out.glob("*.pth"))


def test_wrong_calls(recipe, capsys):
    with pytest.raises(SystemExit) as info:
        main(["profile", recipe, "--wait", "3"])
    assert info.value.code == 2
    assert "--wait is at least 4" in capsys.readouterr().err
    assert main(["profile", recipe, "train.max_itre=3"]) == 2
    assert "max_iter" in capsys.readouterr().err
    assert main(["profile", recipe, "train.fsdp={}", "train.ema=null"]) == 2
    assert "train.fsdp: hookline profile is one process" in capsys.readouterr().err


def test_modules_are_compiled_and_the_process_is_set_as_in_a_run(recipe, tmp_path):
    words = ["--out", str(tmp_path / "out"), "--wait", "4", "--warmup", "1", "--steps", "1"]
    before = torch.get_float32_matmul_precision()
    settings = ["train.compile={target: layer, backend: eager}", "train.env.matmul_precision=high"]
    assert main(["profile", recipe, *words, *settings]) == 0
    assert sys.modules["profiled_parts"].SEEN == {"matmul": "high", "compiled": True}
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_a_step_that_fails_leaves_no_profiler(recipe, tmp_path, capsys):
    words = ["--out", str(tmp_path / "out"), "--wait", "4", "--warmup", "1", "--steps", "1"]
    assert main(["profile", recipe, *words, "optimizer.lr=1e30", "train.log_period=1"]) == 1
    assert "is not finite" in capsys.readouterr().err
    assert main(["profile", recipe, *words]) == 0


def test_the_schedule_adds_up():
    assert Schedule(3, 4, 1, 2).total == 10
