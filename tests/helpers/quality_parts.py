"""The parts of a run that takes a second and whose quality rises, falls, and is then stopped early."""

import torch
from torch import nn

from hookline.evaluation import DatasetEvaluator


class Factor(nn.Module):
    """Learns to multiply by two, from noisy batches; a norm and dropout make it like a real model."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.norm = nn.BatchNorm1d(4, affine=False)

    def forward(self, batch):
        x = torch.stack([sample["x"] for sample in batch])
        if not self.training:
            return [{"w": self.w} for _ in batch]
        self.norm(x)
        return {"loss_factor": (nn.functional.dropout(self.w * x, 0.2) - 2 * x).square().mean()}


class Stream:
    """Endless and seekable: a batch depends on its number only."""

    batch_size, epoch_length = 2, 7

    def __init__(self):
        self.position = 0

    def seek(self, num_batches):
        self.position = num_batches

    def __iter__(self):
        while True:
            generator = torch.Generator().manual_seed(self.position)
            self.position += 1
            yield [{"x": torch.randn(4, generator=generator)} for _ in range(2)]


class Unmeasured(Stream):
    epoch_length = None


def samples(count=3):
    return [[{"x": torch.full((4,), 1.0 + k)}] for k in range(count)]


class Quality(DatasetEvaluator):
    """Best where the factor is 1.2, on the way to 2."""

    def reset(self):
        self.factors = []

    def process(self, inputs, outputs):
        self.factors += [float(output["w"]) for output in outputs]

    def evaluate(self):
        w = sum(self.factors) / len(self.factors)
        return {"toy": {"AP": 100 - 100 * (w - 1.2) ** 2, "distance": abs(w - 1.2)}}

    def metric_names(self, model=None):
        return ["toy/AP", "toy/distance"]


class Silent(Quality):
    def metric_names(self, model=None):
        return None


RECIPE = """
import torch
from omegaconf import OmegaConf

import quality_parts
from hookline.config import LazyCall as L
from hookline.configs.common.train import train
from hookline.engine import get_default_optimizer_params

model = L(quality_parts.Factor)()
dataloader = OmegaConf.create({})
dataloader.train = L(quality_parts.Stream)()
dataloader.test = L(quality_parts.samples)()
dataloader.validation = L(quality_parts.samples)(count=5)
dataloader.evaluator = L(quality_parts.Quality)()
optimizer = L(torch.optim.SGD)(params=L(get_default_optimizer_params)(), lr=0.02, momentum=0.2)
lr_multiplier = None
train.device = "cpu"
train.max_iter = 60
train.log_period = 2
train.loggers.tensorboard = None
"""
