"""The settings `train.env`: refused with their path, and brought to where they count."""

import argparse
import sys
from datetime import timedelta

import pytest
import torch
from omegaconf import OmegaConf

from hookline.cli.errors import UsageError
from hookline.cli.process_settings import build_process_settings, check_process_settings, launch_options
from hookline.cli.settings import DEFAULTS, load_settings
from hookline.cli.train import main, parse_arguments
from hookline.engine.process_settings import ProcessSettings

PARTS = """
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)
        print("threads when the model is built:", torch.get_num_threads())

    def forward(self, batch):
        return {"loss": self.linear(torch.ones(1, 1)).sum()}


class Loader:
    batch_size = 1

    def __iter__(self):
        while True:
            yield [{}]
"""

RECIPE = """
import torch
from omegaconf import OmegaConf

from hookline.config import LazyCall as L
from hookline.engine.optimizer import get_default_optimizer_params
from parts_of_process_settings import Loader, Model

model = L(Model)()
dataloader = OmegaConf.create({"train": L(Loader)()})
optimizer = L(torch.optim.SGD)(params=L(get_default_optimizer_params)(), lr=0.1)
train = OmegaConf.create({"max_iter": 1, "device": "cpu", "log_period": 1})
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "parts_of_process_settings.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "recipe.py").write_text(RECIPE)
    yield tmp_path / "recipe.py"
    sys.modules.pop("parts_of_process_settings", None)


def recipe(env=None, **train):
    settings = {**DEFAULTS, "device": "cpu", **train, "env": {**DEFAULTS["env"], **(env or {})}}
    return OmegaConf.create({"train": settings})


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"num_threads": 0}, r"train\.env\.num_threads=0: expected a whole number of at least 1"),
        ({"num_interop_threads": True}, r"train\.env\.num_interop_threads=True"),
        ({"opencv_num_threads": -1}, r"train\.env\.opencv_num_threads=-1"),
        ({"mp_start_method": "forkserve"}, r"train\.env\.mp_start_method='forkserve': did you mean forkserver"),
        ({"sharing_strategy": "files"}, r"train\.env\.sharing_strategy='files'"),
        ({"cudnn_benchmark": "yes"}, r"train\.env\.cudnn_benchmark='yes': expected true, false or null"),
        ({"cudnn_benchmark": 1}, r"train\.env\.cudnn_benchmark=1: expected true, false or null"),
        ({"cudnn_deterministic": 2}, r"train\.env\.cudnn_deterministic=2"),
        ({"matmul_precision": "hihg"}, r"train\.env\.matmul_precision='hihg': did you mean high"),
        ({"log_level": "INF"}, r"train\.env\.log_level='INF': did you mean INFO"),
        ({"log_level": None}, r"train\.env\.log_level=None"),
        ({"backend": "ncll"}, r"train\.env\.backend='ncll': did you mean nccl"),
        ({"backend": "nccl"}, r"train\.env\.backend='nccl' needs GPUs, and train\.device='cpu'"),
        ({"timeout_s": 0}, r"train\.env\.timeout_s=0: expected a number above 0"),
        ({"eval_timeout_s": None}, r"train\.env\.eval_timeout_s=None"),
        ({"rendezvous_timeout_s": float("inf")}, r"train\.env\.rendezvous_timeout_s=inf"),
    ],
)
def test_a_wrong_value_is_named(env, words):
    check_process_settings(recipe())
    with pytest.raises(UsageError, match=words):
        check_process_settings(recipe(env))


def test_contradictions_are_named():
    with pytest.raises(UsageError, match=r"train\.env\.cudnn_benchmark=True and train\.cudnn_benchmark=False"):
        check_process_settings(recipe({"cudnn_benchmark": True}, cudnn_benchmark=False))
    check_process_settings(recipe({"cudnn_benchmark": True}, cudnn_benchmark=True))
    with pytest.raises(UsageError, match=r"matmul_precision='high' and train\.precision='tf32'"):
        check_process_settings(recipe({"matmul_precision": "high"}, precision="tf32"))
    with pytest.raises(UsageError, match=r"train\.env=None"):
        check_process_settings(OmegaConf.create({"train": {"env": None}}))


def test_an_unknown_key_is_named(file):
    with pytest.raises(UsageError, match=r"train\.env\.num_thread; did you mean train\.env\.num_threads"):
        load_settings(parse_arguments(["--config-file", str(file), "+train.env.num_thread=1"]))


def test_what_each_process_applies():
    args = argparse.Namespace(eval_only=False)
    assert build_process_settings(recipe(), args) == ProcessSettings()
    cfg = recipe({"num_threads": 3, "cudnn_benchmark": True, "backend": "gloo", "timeout_s": 5, "eval_timeout_s": 7.5})
    assert build_process_settings(cfg, args) == ProcessSettings(num_threads=3, cudnn_benchmark=True)
    assert build_process_settings(cfg, argparse.Namespace(eval_only=True)).cudnn_benchmark is False
    assert launch_options(cfg) == {
        "backend": "gloo",
        "on_cpu": True,
        "timeout": timedelta(seconds=5),
        "eval_timeout": timedelta(seconds=7.5),
        "rendezvous_timeout": timedelta(minutes=5),
    }


def test_a_run_applies_them_before_its_model_is_built_and_leaves_nothing(file, tmp_path, capsys):
    before = torch.get_num_threads()
    more = [f"train.env.num_threads={before + 2}", "train.env.log_level=WARNING"]
    assert main(["--config-file", str(file), "--work-dir", str(tmp_path), "--no-validate", *more]) == 0
    assert f"threads when the model is built: {before + 2}" in capsys.readouterr().out
    assert torch.get_num_threads() == before
    assert (tmp_path / "log.txt").read_text() == ""  # nothing below a warning
