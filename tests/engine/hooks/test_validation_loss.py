import contextlib
import hashlib
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from hookline.engine import Checkpointer, SimpleTrainer, get_event_storage
from hookline.engine.hooks import CallbackHook, PeriodicCheckpointer, ValidationLossHook
from hookline.engine.hooks.validation_loss import untouched


class Model(nn.Module):
    """With everything that could leave a trace: BN, dropout, an own buffer, draws, own metrics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
        self.layers[0].requires_grad_(False)
        self.frozen = nn.BatchNorm1d(4).eval()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, batch):
        self.calls += 1
        get_event_storage().put_scalar("model/calls", self.calls)
        noise = random.random() + np.random.rand() + float(torch.rand(()))
        out = self.layers(self.frozen(torch.stack([sample["x"] for sample in batch])))
        return {"loss_out": out.square().mean(), "loss_noise": noise * out.abs().mean()}


def digest(model, optimizer):
    sha = hashlib.sha256()
    for name, value in model.state_dict().items():
        sha.update(name.encode() + value.numpy().tobytes())
    for parameter in model.parameters():
        sha.update(b"none" if parameter.grad is None else parameter.grad.numpy().tobytes())
    sha.update(pickle.dumps([module.training for module in model.modules()]))
    sha.update(
        pickle.dumps(random.getstate()) + np.random.get_state()[1].tobytes() + torch.get_rng_state().numpy().tobytes()
    )
    for state in optimizer.state_dict()["state"].values():
        sha.update(b"".join(value.numpy().tobytes() for value in state.values() if value is not None))
    return sha.hexdigest()  # fmt: skip


def run(stream, validate, steps=7):
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    trainer = SimpleTrainer(model, stream(4), optimizer)
    model.frozen.eval()
    digests = []
    validation = [[stream.sample(1000 + i) for i in range(3)], [stream.sample(2000)]]
    trainer.register_hooks(
        [
            ValidationLossHook(2, validation) if validate else None,
            CallbackHook(after_step=lambda t: digests.append(digest(model, optimizer))),
        ]
    )
    trainer.train(0, steps)
    return trainer, digests


def test_training_does_not_notice_it(stream):
    (with_it, digests), (without, expected) = run(stream, True), run(stream, False)
    assert digests == expected  # parameters, buffers, gradients, modes, generators, momentum after every step
    theirs = {name: h.values() for name, h in without.storage.histories().items() if "time" not in name}
    ours = {name: h.values() for name, h in with_it.storage.histories().items() if name in theirs}
    assert ours == theirs
    course = with_it.storage.history("validation/total_loss").values()
    assert [iteration for _, iteration in course] == [1, 3, 5, 7]
    assert len({value for value, _ in course}) == 4


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        return {"a": self.w * sum(batch) / len(batch), "b": self.w * 2.0}


def test_every_sample_has_the_same_weight():
    model = Mean()
    trainer = SimpleTrainer(model, [[1.0]] * 2, torch.optim.SGD(model.parameters(), lr=0.0))
    trainer.register_hooks([ValidationLossHook(0, [[1.0, 2.0, 3.0], [10.0]], prefix="val")])
    trainer.train(0, 2)
    latest = trainer.storage.latest()
    assert latest["val/a"] == (4.0, 2)
    assert latest["val/b"] == (2.0, 2)
    assert latest["val/total_loss"] == (6.0, 2)


def test_batch_norm_and_dropout_are_those_of_evaluation(stream):
    trainer, _ = run(stream, True, steps=2)
    model = trainer.model
    samples = [stream.sample(1000 + i) for i in range(3)] + [stream.sample(2000)]
    model.eval()
    with torch.no_grad():
        out = model.layers(model.frozen(torch.stack([sample["x"] for sample in samples])))
    assert trainer.storage.latest()["validation/loss_out"][0] == pytest.approx(float(out.square().mean()), rel=1e-5)


def test_what_fails_leaves_no_trace_either(stream):
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    trainer = SimpleTrainer(model, stream(4), optimizer)
    digests = []
    hook = ValidationLossHook(1, [[stream.sample(1)], ["no sample"]])
    note = CallbackHook(after_step=lambda t: digests.append(digest(model, optimizer)))
    trainer.register_hooks([note, hook])
    with pytest.raises(TypeError):
        trainer.train(0, 2)
    assert digests == [digest(model, optimizer)]


def test_an_empty_set_is_refused(make_trainer):
    with pytest.raises(ValueError, match="no sample"):
        make_trainer([ValidationLossHook(1, [])]).train(0, 2)


class Swapping(Mean):
    """Puts a new tensor in a buffer's place, as some models do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.path = StochasticDepth(0.5, "row")

    def forward(self, batch):
        self.calls = self.calls + 1
        assert self.path.training == torch.is_grad_enabled()
        return super().forward(batch)


def test_buffers_that_are_replaced_come_back():
    model = Swapping()
    before = model.calls
    with untouched(model), torch.no_grad():
        model.path.eval()
        model([1.0])
    assert model.calls is before
    assert float(before) == 0
    trainer = SimpleTrainer(model, [[1.0]] * 2, torch.optim.SGD(model.parameters(), lr=0.0))
    trainer.register_hooks([ValidationLossHook(1, [[1.0]])])
    trainer.train(0, 2)
    assert float(model.calls) == 2


class Stopped(Exception):
    pass


class Loader:
    def __init__(self, stop):
        self.stop, self.times = stop, 0

    def __iter__(self):
        self.times += 1
        yield [1.0]
        if self.stop is not None and self.times == 2:
            raise self.stop


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Stopped])
def test_what_was_not_finished_is_made_up_for_after_a_resume(tmp_path, stop):
    def run(end, stop=None):
        model = Mean()
        trainer = SimpleTrainer(model, [[1.0]] * 9, torch.optim.SGD(model.parameters(), lr=0.1))
        checkpointer = Checkpointer(model, tmp_path, trainer=trainer)
        hook = ValidationLossHook(2, Loader(stop), interruption=Stopped)
        trainer.register_hooks([PeriodicCheckpointer(checkpointer, 2), hook])
        start = checkpointer.resume() + 1
        with contextlib.suppress(KeyboardInterrupt):
            trainer.train(start, end)
        return [(i, round(v, 4)) for v, i in trainer.storage.history("validation/a").values()], hook

    first, hook = run(4 if stop is KeyboardInterrupt else 5, stop)
    assert first[0] == (1, 0.4)
    assert hook.unfinished is False  # of the last one
    second, _ = run(6)
    assert second == [(1, 0.4), (3, -0.2), (6, -0.8)] if stop is KeyboardInterrupt else second[-1] == (6, -0.8)
