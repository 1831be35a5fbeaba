"""`train.compile`."""

import os
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from hookline.cli import compilation
from hookline.cli.compilation import check_compile, compile_modules
from hookline.cli.errors import UsageError
from hookline.cli.train import main
from hookline.engine import SimpleTrainer
from hookline.engine.hooks import EMAHook
from hookline.modeling.layers import FrozenBatchNorm2d
from hookline.modeling.layers.recompute import RecomputedSequential
from small_runs import RECIPE, SMALL


class Backbone(nn.Sequential):
    def forward(self, x):  # of its own: torch 2.8 compiles no module whose class is torch's
        return super().forward(x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = Backbone(nn.Linear(4, 4), nn.ReLU())
        self.head = nn.Linear(4, 1)

    def forward(self, batch):
        return {"loss": self.head(self.backbone(torch.stack([sample["x"] for sample in batch]))).square().mean()}


def setting(value):
    return OmegaConf.create({"train": {"compile": value}})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, r"train\.compile=True: expected null, or a dict"),
        ({"targets": "backbone"}, r"did you mean train\.compile\.target"),
        ({"target": []}, r"train\.compile\.target=\[\]"),
        ({"target": 3}, r"train\.compile\.target=3"),
        ({"mode": "max-autotun"}, r"train\.compile\.mode='max-autotun': did you mean max-autotune"),
        ({"backend": "inductr"}, r"train\.compile\.backend='inductr': did you mean inductor"),
        ({"backend": "eager", "mode": "default"}, "is for the backend 'inductor'"),
        ({"dynamic": "yes"}, r"train\.compile\.dynamic='yes'"),
        ({"fullgraph": 1}, r"train\.compile\.fullgraph=1"),
    ],
)
def test_refusals(value, words):
    with pytest.raises(UsageError, match=words):
        check_compile(setting(value))


def test_names_of_modules(monkeypatch):
    monkeypatch.setenv("CXX", "not-called")  # nothing is compiled before the first call
    compile_modules(None, Model())
    for value in ({}, {"target": "model"}, {"target": ["head", "backbone.0"], "mode": "reduce-overhead"}):
        check_compile(setting(value))
        compile_modules(setting(value).train.compile, Model())
    with pytest.raises(UsageError, match="target='backbon': the model has no such module; did you mean backbone"):
        compile_modules(setting({"target": ["head", "backbon"]}).train.compile, Model())
    with pytest.raises(UsageError, match="expected one of model, backbone, head or what they consist of"):
        compile_modules(setting({"target": "x"}).train.compile, Model())


def test_a_torch_that_would_count_a_batch_twice(monkeypatch):
    group = setting({"backend": "aot_eager"}).train.compile
    model = Model()
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    model.backbone = nn.Sequential(RecomputedSequential(block))
    right = compilation.compiled_backward_keeps_buffers()
    monkeypatch.setattr(compilation, "compiled_backward_keeps_buffers", lambda: False)
    with pytest.raises(UsageError, match=r"target='backbone': its 0 computes .* \(with_cp=True\), and torch .* second"):
        compile_modules(group, model)
    block[1] = FrozenBatchNorm2d(3)  # has no running statistics
    compile_modules(group, model)
    block[1] = nn.BatchNorm2d(3)
    monkeypatch.undo()
    if right:
        compile_modules(group, model)
        model.backbone(torch.rand(2, 3, 4, 4)).sum().backward()
        assert block[1].num_batches_tracked == 1


def test_a_machine_without_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    group = setting({}).train.compile
    with pytest.raises(UsageError, match=r"a C\+\+ compiler on cpu, and there is no g\+\+ on the PATH: .* CXX$"):
        compile_modules(group, Model())
    with pytest.raises(UsageError, match=r"a C compiler on cuda, and there is no gcc or clang on the PATH: .* CC$"):
        compile_modules(group, Model(), "cuda")
    for name in ("clang", "clang++"):
        (tmp_path / name).touch(0o755)
    compile_modules(group, Model(), "cuda")
    with pytest.raises(UsageError, match="compiler on cpu"):  # inductor does not look for clang++ on Linux
        compile_modules(group, Model())
    compile_modules(setting({"backend": "eager"}).train.compile, Model())


@pytest.mark.parametrize("target", ["model", "backbone", ["backbone.0", "head"]])
def test_training_gives_the_same_under_the_same_names(target):
    loader, states = [[{"x": torch.randn(4)} for _ in range(3)] for _ in range(4)], []
    for value in ({"target": target, "backend": "aot_eager"}, None):
        model, hook = Model(), EMAHook(0.5)
        compile_modules(setting(value).train.compile, model)
        trainer = SimpleTrainer(model, loader, torch.optim.SGD(model.parameters(), lr=0.1))
        trainer.register_hooks([hook])
        trainer.train(0, 4)
        states.append((model.state_dict(), hook.state_dict()["averages"]))
    for part in (0, 1):
        assert states[0][part].keys() == states[1][part].keys()
        for name, tensor in states[0][part].items():
            torch.testing.assert_close(tensor, states[1][part][name])


def test_it_is_compiled_indeed():
    model = Model()
    compile_modules(setting({"target": "backbone", "backend": "eager"}).train.compile, model)
    torch.compiler.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    model([{"x": torch.ones(4)}])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1


@pytest.mark.slow
def test_a_run_with_a_compiled_backbone(datasets, tmp_path, capfd):
    small = [
        *SMALL,
        "train.max_iter=2",
        "train.ema={decay: 0.5, evaluate: beside}",
        "train.precise_bn={num_iter: 2}",
        "model.backbone.bottom_up.with_cp=true",
    ]

    def run(folder, *more):
        return main(["--config-file", RECIPE, "--work-dir", str(tmp_path / folder), *small, *more])

    assert run("plain", "train.compile={target: backbon, backend: eager}") == 2
    assert "did you mean backbone" in capfd.readouterr().err
    compiled = "train.compile={target: backbone, backend: aot_eager, dynamic: true}"
    assert run("plain") == run("compiled", compiled) == 0
    plain, found = (
        torch.load(tmp_path / folder / "model_final.pth", weights_only=True) for folder in ("plain", "compiled")
    )
    assert plain["model"].keys() == found["model"].keys()
    for name, value in plain["model"].items():
        torch.testing.assert_close(found["model"][name], value, rtol=1e-2, atol=1e-3)
    assert run("compiled", compiled, "--eval-only", f"train.init_checkpoint={tmp_path}/compiled/model_final.pth") == 0


INDUCTOR = """
import torch
from omegaconf import OmegaConf
from tests.cli.test_compilation import Model, compile_modules
plain, compiled = Model(), Model()
compile_modules(OmegaConf.create({"target": "backbone"}), compiled)
batch = [{"x": torch.randn(4)} for _ in range(3)]
for model in (plain, compiled):
    model(batch)["loss"].backward()
for (name, p), (other, q) in zip(plain.named_parameters(), compiled.named_parameters()):
    assert name == other
    torch.testing.assert_close(p.grad, q.grad)
assert torch._dynamo.utils.counters["inductor"], torch._dynamo.utils.counters
"""


@pytest.mark.slow
def test_inductor_compiles(tmp_path):
    # in a process of its own: its compiling processes and caches end with it
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", INDUCTOR], check=True, timeout=900, env=environment)
