"""Several processes: the same training as with one, every option of DDP, and who is named for a missing gradient."""

import contextlib
import io
import logging
import sys
from datetime import timedelta
from pathlib import Path

import cloudpickle
import pytest
import torch
from torch import nn

from hookline.engine import SimpleTrainer
from hookline.engine.data_parallel import (
    UnusedParameterCheck,
    UnusedParameterError,
    create_ddp_model,
    ddp_options,
    without_peers,
)
from hookline.engine.launch import launch

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the ranks cannot import a test file by name

GLOBAL_BATCH = 12
STEPS = 20


class Net(nn.Module):
    """A small convolutional net without batch norm; its loss is a mean over samples, so ranks' means average."""

    def __init__(self, skips="never"):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.conv2 = nn.Conv2d(8, 4, 3, padding=1)
        self.extra = nn.Linear(4, 4)
        self.skips = skips
        self.calls = 0

    def forward(self, batch):
        from hookline.distributed import get_rank

        x = torch.stack([sample["image"] for sample in batch])
        x = self.conv2(torch.relu(self.norm(self.conv1(x)))).mean((2, 3))
        self.calls += 1
        every_second = self.skips.endswith("every second time")
        skipping = self.skips.startswith(("everywhere", f"rank {get_rank()}"))
        if not skipping or (every_second and self.calls % 2):
            x = self.extra(x)
        target = torch.stack([sample["target"] for sample in batch])
        return {"loss_square": (x - target).square().mean(), "loss_abs": 0.1 * x.abs().mean()}


def dataset():
    generator = torch.Generator().manual_seed(3)
    return [
        {
            "image": torch.randn(3, 8, 8, generator=generator),
            "target": torch.randn(4, generator=generator),
            "file_name": f"{n}.jpg",
        }
        for n in range(50)
    ]


def train(folder, options=None, accumulate=1, skips="never"):
    """Train on every rank; rank 0 keeps weights and losses."""
    from hookline.data import build_detection_train_loader
    from hookline.distributed import get_rank, get_world_size
    from hookline.engine import SimpleTrainer
    from hookline.engine.data_parallel import UnusedParameterCheck

    torch.manual_seed(0)
    model = Net(skips)
    loader = build_detection_train_loader(
        dataset(), mapper=None, total_batch_size=GLOBAL_BATCH // accumulate, aspect_ratio_grouping=False, seed=1
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    wrapped = create_ddp_model(model, **(options or {}))
    trainer = SimpleTrainer(wrapped, loader, optimizer, gather_metric_period=5, accumulate=accumulate)
    trainer.register_hooks([UnusedParameterCheck()])
    trainer.train(0, STEPS)
    if get_rank() == 0:
        losses = [value for value, _ in trainer.storage.histories()["total_loss"].values()]
        torch.save({"model": model.state_dict(), "losses": losses}, f"{folder}/{get_world_size()}.pth")


def on(processes, folder, **settings):
    with contextlib.redirect_stderr(io.StringIO()):
        launch(
            train,
            0,
            args=(str(folder), *settings.values()) if settings else (str(folder),),
            num_procs_per_machine=processes,
            launcher="none",
            rendezvous_timeout=timedelta(seconds=120),
            timeout=timedelta(seconds=120),
        )
    return torch.load(Path(folder) / f"{processes}.pth", weights_only=True)


def largest_difference(one, other):
    weights = [(one["model"][name] - other["model"][name]).abs().max().item() for name in one["model"]]
    losses = [abs(a - b) for a, b in zip(one["losses"], other["losses"], strict=True)]
    return max(*weights, *losses)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return on(1, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_train_like_one(alone, tmp_path, processes):
    assert len(alone["losses"]) == STEPS
    assert largest_difference(on(processes, tmp_path), alone) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "accumulate", "tolerance"),
    [
        ({"find_unused_parameters": True, "broadcast_buffers": True}, 1, 1e-5),
        ({"static_graph": True, "bucket_cap_mb": 1}, 1, 1e-5),
        ({"gradient_as_bucket_view": True}, 3, 1e-5),
        ({"static_graph": True}, 2, 1e-5),
        ({"static_graph": True, "gradient_as_bucket_view": True}, 3, 1e-5),
        ({"fp16_compression": True}, 1, 1e-2),
    ],
)
def test_every_option_trains_the_same(alone, tmp_path, options, accumulate, tolerance):
    found = on(2, tmp_path, options=options, accumulate=accumulate)
    difference = largest_difference(found, alone)
    assert difference < tolerance
    if "fp16_compression" in options:
        assert difference > 1e-6  # it did compress


@pytest.mark.parametrize("skips", ["everywhere", pytest.param("rank 1", marks=pytest.mark.slow)])
def test_parameters_without_a_gradient_are_named(tmp_path, skips):
    with pytest.raises(UnusedParameterError) as error:
        on(2, tmp_path, options=None, accumulate=1, skips=skips)
    message = str(error.value)
    assert "2 parameter(s) got no gradient" in message
    assert "extra.weight, extra.bias" in message
    assert "iteration 0" in message
    assert "find_unused_parameters" in message
    assert skips == "everywhere" or message.startswith("rank 1")


@pytest.mark.slow
@pytest.mark.parametrize("skips", ["everywhere, every second time", "rank 1, every second time"])
def test_they_are_named_where_an_earlier_batch_of_the_step_left_gradients(tmp_path, skips):
    with pytest.raises(UnusedParameterError) as error:
        on(2, tmp_path, options=None, accumulate=2, skips=skips)
    message = str(error.value)
    assert "iteration 0: 2 parameter(s) got no gradient in the last batch of the step" in message
    assert "extra.weight, extra.bias" in message
    assert skips.startswith("everywhere") or message.startswith("rank 1")


@pytest.mark.slow
def test_unused_parameters_train_where_that_was_said(tmp_path):
    options = {"find_unused_parameters": True}
    one, two = (on(n, tmp_path, options=options, accumulate=1, skips="everywhere") for n in (1, 2))
    assert largest_difference(one, two) < 1e-5


class Parts(nn.Module):
    """A frozen layer, two with one weight, and one whose use in the step's batches is told by a list."""

    def __init__(self, uses):
        super().__init__()
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.extra = nn.Linear(3, 3)
        self.uses = uses
        self.calls = 0

    def forward(self, batch):
        use = self.uses[self.calls % len(self.uses)]
        self.calls += 1
        x = self.two(self.one(self.frozen(torch.ones(2, 3))))
        if use == "undefined":
            return {"loss": Undefined.apply(x, self.extra.weight, self.extra.bias).square().mean()}
        return {"loss": (self.extra(x) if use else x).square().mean()}


class Undefined(torch.autograd.Function):
    """Depends on parameters, to which its backward gives nothing: torch then sends zeros."""

    @staticmethod
    def forward(ctx, x, *parameters):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None


@pytest.fixture
def group_of_one():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def train_parts(uses, **options):
    torch.manual_seed(0)
    model = Parts(uses)
    wrapped = nn.parallel.DistributedDataParallel(model, **options)
    trainer = SimpleTrainer(wrapped, [[0]], torch.optim.SGD(model.parameters(), lr=0.1), accumulate=len(uses))
    trainer.register_hooks([UnusedParameterCheck()])
    try:
        trainer.train(0, 3)
    finally:
        assert not trainer._hooks[0]._trainable
    return model


@pytest.mark.parametrize("options", [{}, {"gradient_as_bucket_view": True}], ids=str)
def test_the_last_batch_of_a_step_counts(group_of_one, options):
    train_parts([False, True], **options)
    train_parts([True, "undefined"], **options)
    train_parts([True])
    with pytest.raises(UnusedParameterError, match=r"2 parameter.* in the last batch of the step.*extra.weight, extra"):
        train_parts([True, False], **options)
    with pytest.raises(UnusedParameterError, match=r"2 parameter.s. got no gradient, so there .*extra.weight, extra"):
        train_parts([False], **options)
    train_parts([True, False], find_unused_parameters=True, **options)


def test_a_static_graph_is_learnt_before_batches_are_accumulated(group_of_one, monkeypatch):
    sent = []
    forward = nn.parallel.DistributedDataParallel.forward

    def noting(self, batch):
        sent.append(self.require_backward_grad_sync)
        return forward(self, batch)

    monkeypatch.setattr(nn.parallel.DistributedDataParallel, "forward", noting)
    train_parts([True, True, True], static_graph=True)
    assert sent == [True] * 3 + [False, False, True] * 2


def test_synchronised_norm_is_plain_in_a_single_process(caplog):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.SyncBatchNorm(4, momentum=0.3)), nn.BatchNorm2d(4))
    model[1].eval()
    sync = model[1][0]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    logger = logging.getLogger("hookline")
    logger.propagate = True
    with caplog.at_level(logging.INFO, "hookline"):
        assert create_ddp_model(model) is model
    plain = model[1][0]
    assert type(plain) is nn.BatchNorm2d
    assert plain.weight is sync.weight
    assert plain.running_mean is sync.running_mean
    assert (plain.momentum, plain.training) == (0.3, False)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert "SyncBN becomes BN in a single process: 1 layer(s)" in caplog.text
    model.train()(torch.randn(2, 3, 4, 4)).sum().backward()
    caplog.clear()
    without_peers(model)
    assert not caplog.text


def test_the_options_are_those_of_ddp():
    assert {"find_unused_parameters", "static_graph", "broadcast_buffers", "fp16_compression"} <= set(ddp_options())
    assert not {"module", "device_ids", "process_group"} & set(ddp_options())
