"""A run that takes a second: the parts of the recipe with which ``test_loggers_resume.py`` is killed and resumed."""

import os

import torch
from torch import nn

from hookline.engine import get_event_storage, has_event_storage
from hookline.evaluation import DatasetEvaluator


class Tiny(nn.Module):
    """Two losses of a linear model with dropout; kills its process in the step that $KILL_IN_STEP names."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, batch):
        if not self.training:
            return [{"score": float(self.linear(sample["x"]).sum())} for sample in batch]
        if str(get_event_storage().iter) == os.environ.get("KILL_IN_STEP"):
            os.kill(os.getpid(), 9)
        out = nn.functional.dropout(self.linear(torch.stack([sample["x"] for sample in batch])), 0.25)
        get_event_storage().put_scalar("largest", out.max(), smoothing_hint=False)
        return {"loss_a": out[:, 0].square().mean(), "loss_b": (out[:, 1] - 1).abs().mean()}


class Stream:
    """Endless and seekable: a batch depends on its number only."""

    position = 0

    def seek(self, num_batches):
        self.position = num_batches

    def __iter__(self):
        while True:
            generator = torch.Generator().manual_seed(self.position)
            self.position += 1
            yield [{"x": torch.randn(4, generator=generator)} for _ in range(2)]


def two_samples():
    return [[{"x": torch.ones(4)}], [{"x": -torch.ones(4)}]]


class Scores(DatasetEvaluator):
    """The sum of the model's scores; kills its process in the evaluation behind the step in $KILL_IN_EVALUATION."""

    def reset(self):
        self.total = 0.0

    def process(self, inputs, outputs):
        if has_event_storage():
            if str(get_event_storage().iter) == os.environ.get("KILL_IN_EVALUATION"):
                os.kill(os.getpid(), 9)
            get_event_storage().put_image("seen", torch.full((3, 2, 2), len(outputs), dtype=torch.uint8))
        self.total += sum(output["score"] for output in outputs)

    def evaluate(self):
        return {"toy": {"score": self.total}}


RECIPE = """
import torch
from omegaconf import OmegaConf

import tiny_parts
from hookline.config import LazyCall as L
from hookline.configs.common.train import train
from hookline.engine import get_default_optimizer_params
from hookline.engine.schedule import CosineParamScheduler

model = L(tiny_parts.Tiny)()
dataloader = OmegaConf.create({})
dataloader.train = L(tiny_parts.Stream)()
dataloader.test = L(tiny_parts.two_samples)()
dataloader.evaluator = L(tiny_parts.Scores)()
optimizer = L(torch.optim.SGD)(params=L(get_default_optimizer_params)(), lr=0.1, momentum=0.9)
lr_multiplier = L(CosineParamScheduler)(start_value=1.0, end_value=0.0)
train.device = "cpu"
train.max_iter = 20
train.log_period = 2
train.eval_period = 5
train.checkpointer = {"period": 5}
"""
