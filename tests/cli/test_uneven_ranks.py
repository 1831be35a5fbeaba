"""Runs of the command line on one, two and three processes: the same training, and none that hangs."""

import os
import subprocess
import sys

import pytest
import torch

from small_runs import PROGRAM, SMALL

PLAIN = """
from hookline.config import LazyCall as L
from hookline.configs.balloon.mask_rcnn_tiny import dataloader, lr_multiplier, optimizer, train
from uneven_model import PlainNet
model = L(PlainNet)()
"""
UNEVEN = """
from hookline.configs.balloon.mask_rcnn_tiny import dataloader, lr_multiplier, model, optimizer, train
from uneven_model import UnevenRCNN
model["_target_"] = UnevenRCNN
"""
BOUND_S = 400.0  # 15 to 30 s on an idle machine


def train(folder, drawn, recipe, processes, *arguments, **variables):
    """Train in processes of their own; return exit code, both outputs together, and the run's folder."""
    folder.mkdir(exist_ok=True)
    (folder / "recipe.py").write_text(recipe)
    command = [sys.executable, PROGRAM, "--config-file", str(folder / "recipe.py"), "--no-validate"]
    environ = {name: value for name, value in os.environ.items() if name not in ("MASTER_PORT", "PORT")}
    done = subprocess.run(
        [*command, "--work-dir", str(folder / "run"), "--num-procs", str(processes), *SMALL, *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
        env={
            **environ,
            "HOOKLINE_DATASETS": str(drawn),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
            **variables,
        },
    )
    return done.returncode, done.stdout + done.stderr, folder / "run"


def losses(run, *names) -> dict[str, list[float]]:
    """Each step's losses, means over the ranks, as the last checkpoint keeps them; `metrics.json` smooths them."""
    kept = torch.load(run / "model_final.pth", weights_only=True)["trainer"]["storage"]
    return {name: list(kept[name]["values"]) for name in names}


@pytest.mark.slow
def test_one_two_and_three_processes_train_the_same(tmp_path, drawn, record_property):
    """20 steps with a global batch of 6 on a model without batch norm: losses and weights agree to 1e-5."""
    found = {}
    for processes in (1, 2, 3):
        settings = ["dataloader.train.total_batch_size=6", "train.max_iter=20", "optimizer.lr=1e-2"]
        code, output, run = train(tmp_path / str(processes), drawn, PLAIN, processes, *settings)
        assert code == 0, output
        weights = torch.load(run / "model_final.pth", weights_only=True)["model"]
        found[processes] = losses(run, "total_loss", "loss_count", "loss_covered"), weights
    alone, weights_alone = found[1]
    assert len(alone["total_loss"]) == 20
    assert alone["total_loss"][-1] < alone["total_loss"][0]  # it did train
    for processes in (2, 3):
        values, weights = found[processes]
        of_losses = max(abs(a - b) for name in alone for a, b in zip(alone[name], values[name], strict=True))
        of_weights = max((weights[name] - weights_alone[name]).abs().max().item() for name in weights)
        record_property(f"largest difference on {processes} processes", (of_losses, of_weights))
        print(f"{processes} processes: losses differ by {of_losses:.2e}, weights by {of_weights:.2e}")
        assert of_losses < 1e-5
        assert of_weights < 1e-5


@pytest.mark.slow
def test_ranks_without_objects_train_on(tmp_path, drawn):
    """Mask R-CNN where rank 1 never has an object and now and then no rank has: every part gets its gradient."""
    settings = ["train.max_iter=6"]
    code, output, run = train(tmp_path / "a", drawn, UNEVEN, 2, *settings)
    assert code == 0, output
    masks = losses(run, "loss_mask")["loss_mask"]
    assert len(masks) == 6
    assert masks[2] == masks[5] == 0.0  # nobody had an object
    assert masks[0] > 0


@pytest.mark.slow
def test_parameters_that_one_rank_leaves_out_are_named_or_looked_for(tmp_path, drawn):
    settings = ["train.max_iter=3"]
    code, output, _ = train(tmp_path / "a", drawn, UNEVEN, 2, *settings, UNUSED="1")
    assert code == 1, output
    assert "error: rank 1, iteration 0: 2 parameter(s) got no gradient" in output
    assert "extra.weight, extra.bias" in output
    assert "train.ddp.find_unused_parameters=true" in output
    assert "Traceback" not in output
    look = "train.ddp.find_unused_parameters=true"
    code, output, run = train(tmp_path / "b", drawn, UNEVEN, 2, *settings, look, UNUSED="1")
    assert code == 0, output
    assert (run / "model_final.pth").exists()
