"""The recipe trained for its 150 epochs on a few drawn images: every rate in every step, and what happened when."""

import json
from pathlib import Path

import pytest
import torch

from hookline.cli import job
from hookline.cli.train import main
from hookline.data.datasets.synthetic_balloons import generate_balloons
from hookline.engine.hooks import CallbackHook

# A detector whose steps take milliseconds, in place of the recipe's; all else is the recipe's.
DETECTOR = """
import torch
from hookline.structures import Boxes, Instances

class Detector(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Conv2d(3, 4, 3)
        self.head = torch.nn.Linear(4, 1)

    def forward(self, batch):
        features = [self.head(self.backbone(sample["image"].float() / 50).mean((1, 2))) for sample in batch]
        if self.training:
            return {"loss": torch.stack(features).square().mean()}
        return [{"instances": self.predict(sample, score)} for sample, score in zip(batch, features)]

    def predict(self, sample, score):
        height, width = sample["height"], sample["width"]
        box = torch.tensor([[width * 0.25, height * 0.25, width * 0.75, height * 0.75]])
        found = Instances((height, width))
        found.pred_boxes, found.scores = Boxes(box), score.sigmoid()
        found.pred_classes = torch.zeros(1, dtype=torch.int64)
        return found
"""
SMALLER = """
import tiny_detector
from hookline.config import LazyCall as L, LazyConfig

_recipe = LazyConfig.load(RECIPE)
dataloader, optimizer, lr_multiplier, train = (
    _recipe[name] for name in ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = L(tiny_detector.Detector)()
"""
RECIPE = Path(__file__).resolve().parents[1] / "configs" / "mask_rcnn_tiny_150e.py"
IMAGES, BATCH = 4, 2
STEPS = IMAGES // BATCH  # an epoch
SMALL = [
    "dataloader.train.mapper.augmentations.0.short_edge_length=[64, 96]",
    "dataloader.test.mapper.augmentations.0.short_edge_length=96",
    f"dataloader.train.total_batch_size={BATCH}",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "train.device=cpu",
    "train.precision=fp32",
]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_150_epochs(tmp_path, monkeypatch, capfd):
    generate_balloons(tmp_path / "data", num_train=IMAGES, num_val=1)
    monkeypatch.setenv("HOOKLINE_DATASETS", str(tmp_path / "data"))
    (tmp_path / "tiny_detector.py").write_text(DETECTOR)
    (tmp_path / "smaller.py").write_text(SMALLER.replace("RECIPE", repr(str(RECIPE))))
    monkeypatch.syspath_prepend(tmp_path)
    groups, norms = [], []

    def note(trainer):
        groups.append([(g["lr"], g["weight_decay"]) for g in trainer.optimizer.param_groups])

    def measure(trainer):  # the gradients that the optimizer used are still there
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    hooks = job.default_hooks
    extra = CallbackHook(after_backward=note, after_step=measure)
    monkeypatch.setattr(job, "default_hooks", lambda *args: [*hooks(*args), extra])
    run = tmp_path / "run"
    assert main(["--config-file", str(tmp_path / "smaller.py"), "--work-dir", str(run), *SMALL]) == 0

    total = 150 * STEPS
    assert len(groups) == total
    for step, (backbone, others) in enumerate(groups):
        factor = 1.0 if step < 100 * STEPS else 0.1
        assert backbone == (pytest.approx(1e-5 * factor, abs=1e-17), 1e-4)
        assert others == (pytest.approx(1e-4 * factor, abs=1e-16), 1e-4)
    assert max(norms) <= 0.1 + 1e-6

    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    logged = [line["iteration"] for line in lines if "total_loss" in line]
    assert logged == [*range(49, total, 50)]
    assert all(line["grad_norm"] > 0 for line in lines if "total_loss" in line)
    evaluated = [line["iteration"] for line in lines if "bbox/AP" in line]
    assert evaluated == [*range(5 * STEPS - 1, total - 1, 5 * STEPS), total]
    saved = sorted(file.name for file in run.glob("model_*.pth"))
    assert saved == [f"model_{k:07d}.pth" for k in range(20 * STEPS - 1, total - 1, 20 * STEPS)] + ["model_final.pth"]
    table = [line.split() for line in (run / "log.txt").read_text().splitlines()]
    assert any(row[3:5] == ["1e-05", "0.0001"] and row[5].startswith("backbone.") for row in table if len(row) > 5)
