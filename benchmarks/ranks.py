"""What several ranks cost, on two CPU ranks beside named peers.

* Starting: seconds from the command to the end of the first collective on both ranks, and to the end of the program.
* A killed rank: seconds from the kill to the end of all processes, and how many lines say so.
* Stepping: microseconds per iteration above a bare loop with DistributedDataParallel, as in `benchmarks.engine`.

Detectron2 cannot be installed here. Its way of starting is ``torch.multiprocessing.spawn`` with a port found before;
what it does between ranks in each step, by default, is one gather of a dict of the losses: both are measured alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import print_table

TRIALS = 5
_TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
_STARTERS = {
    "hookline.engine.launch": ("hookline", []),
    "torch.multiprocessing.spawn (Detectron2's way)": ("spawn", []),
    "torchrun": ("torchrun", _TORCHRUN),
}
_ENGINES = {
    "hookline, default hooks, writers, suspension": "hookline",
    "Lightning Fabric, logging only": "fabric",
    "mmengine, default hooks, TensorBoard": "mmengine",
    "bare, losses gathered each step (Detectron2's default)": "gathering",
}

__all__ = ["main"]


def main() -> None:
    """Print the tables."""
    print_table(
        [[name, *_start(*how)] for name, how in _STARTERS.items()],
        ["started by", "both ranks met, s", "program ended, s"],
        "Start of two ranks that meet and end, median of five",
    )
    print_table(
        [[name, *_kill(*how)] for name, how in _STARTERS.items()],
        ["started by", "all ended after, s", "lines on the console"],
        "Rank 1 is killed by SIGKILL, median of five",
    )
    print_table(
        [[losses, name, *_step(engine, losses)] for losses in (1, 5) for name, engine in _ENGINES.items()],
        ["losses", "engine", "bare, us", "engine, us", "above, us", "above (CPU time of rank 0), us"],
        "Engine on two ranks: cost per iteration of a model that does nothing",
    )


def _start(who: str, how: list[str]) -> list[float]:
    met, ended = [], []
    for _ in range(TRIALS):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.time()
            _program(how, f"start:{who}", folder)
            ended.append(time.time() - begin)
            met.append(max(_noted(folder, f"met{rank}") for rank in (0, 1)) - begin)
    return [statistics.median(met), statistics.median(ended)]


def _kill(who: str, how: list[str]) -> list[float]:
    seconds, lines = [], []
    for _ in range(TRIALS):
        with tempfile.TemporaryDirectory() as folder:
            said = _program(how, f"kill:{who}", folder, fails=True)
            seconds.append(time.time() - _noted(folder, "killed"))
            lines.append(len(said.strip().splitlines()))
    return [statistics.median(seconds), statistics.median(lines)]


def _step(engine: str, losses: int) -> list[object]:
    with tempfile.TemporaryDirectory() as folder:
        said = _program(_TORCHRUN, f"step:{engine}:{losses}", folder, fails=True)
        file = Path(folder, "row")
        if file.exists():
            return list(json.loads(file.read_text()))
        missing = [line for line in said.splitlines() if "ModuleNotFoundError" in line]
        if not missing:
            raise RuntimeError(f"step:{engine}:{losses} ended without a result:\n{said}")
        return [missing[0].rpartition(": ")[2], "", "", ""]


def _program(how: list[str], way: str, folder: str, fails: bool = False) -> str:
    command = [sys.executable, *how, "-m", "benchmarks._ranks_child", way, folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode and not fails:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def _noted(folder: str, name: str) -> float:
    return float(Path(folder, name).read_text())
