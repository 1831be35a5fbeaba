"""A small model, a seekable loader and a trainer of both, for the tests of the engine."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from hookline.engine import SimpleTrainer


class TwoLosses(nn.Module):
    """A linear model with two losses that draws from all global generators, as third-party models do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, batch):
        x = torch.stack([sample["x"] for sample in batch])
        out = nn.functional.dropout(self.linear(x), 0.25, self.training)
        noise = random.random() + float(np.random.rand())
        return {"loss_a": out[:, 0].square().mean() + noise * out.mean(), "loss_b": (out[:, 1] - 1).abs().mean()}


class Stream:
    """An endless, seekable loader: sample n of the stream depends on n only."""

    def __init__(self, batch_size=2):
        self.batch_size = batch_size
        self.position = 0
        self.seeks = []

    def seek(self, num_batches):
        self.seeks.append(num_batches)
        self.position = num_batches

    def __iter__(self):
        while True:
            start = self.position * self.batch_size
            self.position += 1
            yield [self.sample(start + i) for i in range(self.batch_size)]

    @staticmethod
    def sample(number):
        generator = torch.Generator().manual_seed(number)
        return {"x": torch.randn(4, generator=generator), "file_name": f"{number:04d}.jpg"}


@pytest.fixture
def stream():
    return Stream


@pytest.fixture
def two_losses():
    def make():
        torch.manual_seed(0)
        return TwoLosses()

    return make


@pytest.fixture
def make_trainer(two_losses):
    """Make a trainer; keyword arguments go to it, `hooks` are registered."""

    def make(hooks=(), *, model=None, loader=None, lr=0.1, **settings):
        model = two_losses() if model is None else model
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        trainer = SimpleTrainer(model, Stream() if loader is None else loader, optimizer, **settings)
        trainer.register_hooks(list(hooks))
        return trainer

    return make
