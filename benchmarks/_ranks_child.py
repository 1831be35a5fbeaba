"""The programs that `benchmarks.ranks` starts: ``python -m benchmarks._ranks_child WAY FOLDER``."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

__all__ = ["main"]

STEP_S = 0.01
STEPS_BEFORE_KILL = 20


def main(way: str, folder: str) -> None:
    """Be one of the programs.

    Args:
        way: ``start`` or ``kill``, and who starts the ranks, or ``step`` and the engine; and the number of losses.
        folder: where results are written.
    """
    torch.set_num_threads(1)
    what, who, *number = way.split(":")
    if what == "step":
        _step(who, int(number[0]), folder)
    elif who == "hookline":
        from hookline.engine import launch

        launch(_work, 0, num_procs_per_machine=2, args=(what, folder))
    elif who == "spawn":
        import torch.multiprocessing as mp

        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]  # free when it is asked for
        mp.spawn(_spawned, (port, what, folder), nprocs=2)
    else:
        dist.init_process_group("gloo")
        _work(what, folder)
        dist.destroy_process_group()


def _spawned(rank: int, port: int, what: str, folder: str) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", timedelta(minutes=30), 2, rank)
    _work(what, folder)
    dist.destroy_process_group()


def _work(what: str, folder: str) -> None:
    """Meet the other rank; then end, or train until rank 1 is killed."""
    rank = dist.get_rank()
    dist.all_reduce(torch.zeros(1))
    _note(folder, f"met{rank}")
    step = 0
    while what == "kill":
        time.sleep(STEP_S)
        if rank == 1 and step == STEPS_BEFORE_KILL:
            _note(folder, "killed")
            os.kill(os.getpid(), signal.SIGKILL)
        dist.all_reduce(torch.zeros(1))
        step += 1


def _note(folder: str, name: str) -> None:
    Path(folder, name).write_text(repr(time.time()))


def _step(engine: str, num_losses: int, folder: str) -> None:
    if engine == "hookline":
        from hookline.engine import launch

        launch(_run, 0, args=(engine, num_losses, folder))  # torchrun started us
    else:
        dist.init_process_group("gloo")
        _run(engine, num_losses, folder)
        dist.destroy_process_group()


def _run(engine: str, num_losses: int, folder: str) -> None:
    from benchmarks.engine import Pairs

    rank = dist.get_rank()
    pairs = Pairs(num_losses, DistributedDataParallel)
    _ENGINES[engine](num_losses, pairs, folder)
    if rank == 0:
        Path(folder, "row").write_text(json.dumps(pairs.row()))


def _hookline(num_losses: int, pairs: object, folder: str) -> None:
    from benchmarks.engine import with_default_hooks
    from hookline.engine import Checkpointer, HookBase
    from hookline.engine.data_parallel import UnusedParameterCheck, create_ddp_model
    from hookline.engine.hooks import SuspendCheckpointer

    def more(checkpointer: Checkpointer) -> list[HookBase]:
        return [UnusedParameterCheck(), SuspendCheckpointer(checkpointer)]

    with_default_hooks(num_losses, pairs, folder, create_ddp_model, more)


def _fabric(num_losses: int, pairs: object, folder: str) -> None:
    from benchmarks.engine import fabric

    fabric(num_losses, pairs, folder, devices=2, strategy="ddp")


def _mmengine(num_losses: int, pairs: object, folder: str) -> None:
    from benchmarks.engine import mmengine

    on_cpu = {"type": "MMDistributedDataParallel", "broadcast_buffers": False, "device_ids": None}
    mmengine(num_losses, pairs, folder, launcher="pytorch", cfg={"model_wrapper_cfg": on_cpu})


def _gathering(num_losses: int, pairs: object, folder: str) -> None:
    """The bare loop, which gathers the losses of all ranks as objects in each step, as Detectron2 does by default."""
    from benchmarks.engine import STEPS, parts

    model, optimizer = parts(num_losses)
    model = DistributedDataParallel(model)
    for _ in range(STEPS):
        losses = model(None)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        numbers = {name: value.detach().cpu().item() for name, value in losses.items()}
        dist.gather_object(numbers, [None, None] if dist.get_rank() == 0 else None)
        optimizer.step()
        pairs.tick()


_ENGINES: dict[str, Callable[[int, object, str], None]] = {
    "hookline": _hookline,
    "fabric": _fabric,
    "mmengine": _mmengine,
    "gathering": _gathering,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
