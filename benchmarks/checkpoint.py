"""How long saving holds up the loop: at once, and in a thread from a copy, for 44 million parameters with momentum."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks import print_table
from hookline.engine import Checkpointer

__all__ = ["main"]

PARAMETERS = 44_000_000  # Mask R-CNN with ResNet-50 and FPN
LAYERS = 110
SAVES = 5
GOAL = 0.2


def make(device: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model of that many parameters and an optimizer that has a momentum for each."""
    side = int((PARAMETERS / LAYERS) ** 0.5)
    model = nn.Sequential(*(nn.Linear(side, side, bias=False) for _ in range(LAYERS))).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return model, optimizer


def blocked(model: nn.Module, optimizer: torch.optim.Optimizer, folder: str, asynchronous: bool) -> list[float]:
    """Return the seconds for which each save but the first, which makes the buffers, held up its caller."""
    checkpointer = Checkpointer(model, folder, optimizer=optimizer, asynchronous=asynchronous)
    seconds = []
    for number in range(SAVES + 1):
        checkpointer.save("model", iteration=number)
        assert checkpointer.last_block_s is not None
        seconds.append(checkpointer.last_block_s)
        checkpointer.wait()  # in a training, the steps until the next save
    return seconds[1:]


def plainly(model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> list[float]:
    """Return the seconds of a plain torch.save of the same content, as Detectron2 and fvcore save."""
    return [_timed(lambda: _plain_save(model, optimizer, folder)) for _ in range(SAVES)]


def _plain_save(model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder) / "plain.pth")


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print the times and their ratio."""
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        model, optimizer = make(device)
        with tempfile.TemporaryDirectory() as folder:
            runs = {
                "Hookline, synchronous (checksums, fsync, rename)": blocked(model, optimizer, folder, False),
                "Hookline, asynchronous": blocked(model, optimizer, folder, True),
                "plain torch.save, not flushed": plainly(model, optimizer, folder),
            }
        base = statistics.median(next(iter(runs.values())))
        rows = [
            (name, statistics.median(seconds), min(seconds), statistics.median(seconds) / base)
            for name, seconds in runs.items()
        ]
        count = sum(parameter.numel() for parameter in model.parameters())
        title = f"{device}: {count / 1e6:.1f} million parameters with momentum; goal: asynchronous at most {GOAL:g}"
        print_table(rows, ("save", "blocks, median s", "best s", "ratio of medians"), title)


if __name__ == "__main__":
    main()
