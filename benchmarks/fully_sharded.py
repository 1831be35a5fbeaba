"""What a rank holds of Mask R-CNN (ResNet-50, FPN) with AdamW: fully sharded beside DistributedDataParallel.

Counted are the bytes of the tensors themselves, after one optimizer step; activations come on top, and are the same.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks import print_table
from hookline.config import LazyConfig, instantiate
from hookline.distributed import is_main_process
from hookline.engine.data_parallel import create_ddp_model
from hookline.engine.fully_sharded import create_fully_sharded_model, is_fully_sharded
from hookline.engine.launch import launch
from hookline.engine.shards import local_bytes

__all__ = ["main"]

RANKS = (2, 4)
UNITS = {
    "default": None,
    "and box head": ["*Block", "roi_heads.box_head"],
}


def state_bytes(model: nn.Module) -> tuple[int, int, int]:
    """Do an optimizer step and count what this rank holds of parameters, gradients and the optimizer's state."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-9)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values()]
    return (
        local_bytes(model.parameters()),
        local_bytes(parameter.grad for parameter in trained),
        local_bytes(value for value in state if isinstance(value, torch.Tensor)),
    )


def gathered_bytes(model: nn.Module) -> int:
    """Count what is whole at a time: the parameters outside of all units, and those of the largest unit."""
    units = {name: module for name, module in model.named_modules() if name and is_fully_sharded(module)}
    inside = {id(parameter) for unit in units.values() for parameter in unit.parameters()}
    outside = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return _whole(outside) + max(_whole(unit.parameters()) for unit in units.values())


def _whole(parameters: Iterable[Any]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def measure(ranks: int) -> None:
    """Print a table; every rank calls it."""
    recipe = LazyConfig.load_rel("../hookline/configs/common/models/mask_rcnn_fpn.py")
    rows = []
    whole = state_bytes(create_ddp_model(instantiate(recipe.model)))
    rows.append(("DDP", "", *(size / 2**20 for size in whole), "", 1.0))
    for name, units in UNITS.items():
        model = create_fully_sharded_model(instantiate(recipe.model), "cpu", units=units)
        sizes = state_bytes(model)
        gathered = gathered_bytes(model) / 2**20
        rows.append(("fully sharded", name, *(size / 2**20 for size in sizes), gathered, sum(sizes) / sum(whole)))
    if is_main_process():
        names = ("", "units", "parameters, MiB", "gradients, MiB", "optimizer, MiB", "gathered at a time, MiB", "ratio")
        print_table(rows, names, title=f"{ranks} ranks, bytes of one of them")


def main() -> None:
    """Measure on two and on four CPU processes."""
    for ranks in RANKS:
        launch(partial(measure, ranks), 0, num_procs_per_machine=ranks)
