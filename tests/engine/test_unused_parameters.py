"""Parameters without a gradient in fully sharded models are named before ranks that differ would crash."""

import time

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

import sharded_runs
from hookline.engine.unused_parameters import _leaves

WHO = """
from hookline.engine.data_parallel import UnusedParameterError

def main(rank, folder):
    found = {}
    for who in (None, 1):
        try:
            found[str(who)] = len(run("fsdp", 3, leave_out=who, find_unused_parameters=True)["losses"])
        except ValueError as error:
            found[str(who)] = str(error)
    quiet = run("fsdp", 3)
    try:
        run("fsdp", 3, leave_out=rank)
    except UnusedParameterError as error:
        found["error"] = str(error)
    dist.barrier()
    again = run("fsdp", 3)  # another model: what watched the one that failed is gone
    return {**found, "same": again == quiet}
"""


def test_they_are_named_or_get_zeros(tmp_path):
    for rank, found in enumerate(sharded_runs.on_ranks(WHO, tmp_path / "ranks")):
        assert found["error"].startswith(f"rank {rank}, iteration 0: 2 parameter(s) got no gradient")
        assert "extra.bias, extra.weight" in found["error"]
        assert "train.fsdp.find_unused_parameters=true" in found["error"]
        assert found["same"]
        if "set_reduce_scatter_unused_params" in dir(FSDPModule):
            assert found["None"] == found["1"] == 3
        else:
            assert "cannot do this for sharded models" in found["None"]


HIDDEN = """
import logging.handlers
from torch.utils.checkpoint import checkpoint

def main(rank, folder):
    quiet, forward = run("fsdp", 3), ConvBlock.forward
    ConvBlock.forward = lambda self, x: checkpoint(forward, self, x, use_reentrant=True)
    warned = logging.handlers.BufferingHandler(99)
    warned.setLevel(logging.WARNING)
    logging.getLogger("hookline").addHandler(warned)
    hidden = run("fsdp", 3)
    ConvBlock.forward = lambda self, x: checkpoint(forward, self, x, use_reentrant=False)
    seen = run("fsdp", 3)
    warnings = [record.getMessage() for record in warned.buffer]
    return {"same": quiet["losses"] == hidden["losses"] == seen["losses"], "warnings": warnings}
"""


@pytest.mark.slow
def test_reentrant_checkpoints_hide_parameters_and_that_is_said_once(tmp_path):
    for found in sharded_runs.on_ranks(HIDDEN, tmp_path / "ranks"):
        assert found["same"]
        (warning,) = found["warnings"]
        assert "reentrant activation checkpoints" in warning
        assert "use_reentrant=False" in warning


def test_leaves_are_what_gradients_accumulate_in():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    frozen = nn.Linear(3, 3).requires_grad_(False)
    out = {"loss": [model(frozen(torch.ones(2, 3))).sum()], "count": 3}
    assert {id(leaf) for leaf in _leaves(out)} == {id(parameter) for parameter in model.parameters()}
    assert list(_leaves(torch.ones(()))) == []


@pytest.mark.slow
def test_looking_costs_little():
    from torchvision.models import resnet50

    model = resnet50(weights=None)
    out = model(torch.randn(2, 3, 64, 64)).sum()
    start = time.perf_counter()
    count = len(list(_leaves(out)))
    assert count == len(list(model.parameters()))
    assert time.perf_counter() - start < 0.2  # 3 ms when nothing else runs
