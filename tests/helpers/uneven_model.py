"""Models of users' own recipes for several processes: one without batch norm, and one whose ranks differ."""

import os

import torch
from torch import nn

from hookline.distributed import get_rank
from hookline.modeling import GeneralizedRCNN


class PlainNet(nn.Module):
    """A convolutional net without batch norm, whose losses are means over images: the ranks' means average."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU()
        )
        self.out = nn.Linear(16, 2)

    def forward(self, batched_inputs):
        """Learn the number of objects and the share of the image that they cover."""
        errors = []
        for sample in batched_inputs:
            features = self.layers(sample["image"][None].float() / 255)
            boxes = sample["instances"].gt_boxes
            area = sample["image"].shape[1] * sample["image"].shape[2]
            target = torch.tensor([float(len(boxes)), float(boxes.area().sum()) / area])
            errors.append((self.out(features.mean((2, 3)))[0] - target).square())
        count, covered = torch.stack(errors).mean(0)
        return {"loss_count": count, "loss_covered": covered}


class UnevenRCNN(GeneralizedRCNN):
    """Mask R-CNN where rank 1 never sees an object, and in each third step nobody does.

    With the variable UNUSED it has parameters that rank 1 leaves out, too.
    """

    def __init__(self, **parts):
        super().__init__(**parts)
        self.steps = 0
        self.extra = nn.Linear(1, 1) if os.environ.get("UNUSED") else None

    def forward(self, batched_inputs):
        if not self.training:
            return super().forward(batched_inputs)
        if get_rank() == 1 or self.steps % 3 == 2:
            batched_inputs = [{**sample, "instances": sample["instances"][:0]} for sample in batched_inputs]
        self.steps += 1
        losses = super().forward(batched_inputs)
        if self.extra is not None and get_rank() != 1:
            losses["loss_extra"] = self.extra(torch.ones(1)).square().sum()
        return losses
