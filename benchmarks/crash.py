"""Kill a training at random moments, resume it, and compare the result with that of a run that never stopped.

    python -m benchmarks.crash [--trials 20] [--pairs 10] [--seed 0]

A tiny Mask R-CNN learns balloons for 60 iterations with a checkpoint every 3. Each trial kills it by SIGKILL once, by
turns at a random moment of the loop and in the middle of writing a checkpoint, and starts it again by ``--resume`` with
another number of data workers. Then two processes on gloo, of which one or both are killed.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks import print_table

__all__ = ["main"]

STEPS = 60
WORKERS = (0, 2, 3)
WRITE_S = 0.5  # how long a slowed write takes, so that it can be hit
TIMEOUT_S = 600.0
RECIPE = str(Path(__file__).with_name("_crash_recipe.py"))


class SlowFile:
    """A file that takes its time, so that a kill finds it half written."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._pauses = 100

    def write(self, data: Any) -> int:
        """Write a piece, the first ones after a pause."""
        if self._pauses:
            self._pauses -= 1
            time.sleep(WRITE_S / 200)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def slow_down_writes() -> None:
    """Make this process write checkpoints slowly."""
    from hookline.engine import checkpoint_write

    quick = checkpoint_write.atomic_open

    @contextlib.contextmanager
    def slow(path: Any, mode: str = "wb", encoding: str | None = None) -> Iterator[Any]:
        with quick(path, mode, encoding) as file:
            yield SlowFile(file)
            time.sleep(WRITE_S / 2)  # complete, but neither flushed nor renamed

    checkpoint_write.atomic_open = slow


def train(folder: Path, workers: int, environment: dict[str, str], slow: bool) -> None:
    """Be the process of a training: the command line's own way, in a process forked from one that has imported all."""
    from hookline.cli.train import main as train_net

    log = os.open(folder / f"output{environment.get('RANK', '')}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(environment)
    if slow:
        slow_down_writes()
    options = ["--no-validate", "--resume", "--work-dir", str(folder), f"dataloader.train.num_workers={workers}"]
    sys.exit(train_net(["--config-file", RECIPE, *options]))


class Run:
    """The processes of one training.

    Args:
        folder: its work dir.
        workers: data workers of each process.
        size: number of processes.
        slow: write checkpoints slowly.
    """

    def __init__(self, folder: Path, workers: int, size: int, slow: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        context = multiprocessing.get_context("fork")
        arguments = [(folder, workers, places, slow) for places in _places(size)]
        self.processes: list[BaseProcess] = [context.Process(target=train, args=each) for each in arguments]
        for process in self.processes:
            process.start()

    def reached(self, iteration: int) -> bool:
        """Tell whether an iteration is finished and written down."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            last = (self.folder / "metrics.json").read_text().splitlines()[-1]
            return json.loads(last)["iteration"] >= iteration
        return False

    def is_writing(self) -> bool:
        """Tell whether a checkpoint is being written."""
        return any(self.folder.glob(".model_*.tmp"))

    def wait_until(self, condition: Any) -> None:
        """Wait for a moment.

        Raises:
            TimeoutError: if it does not come.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while not condition() and all(process.is_alive() for process in self.processes):
            time.sleep(0.002)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.folder}: the moment to kill did not come")

    def kill(self, victims: list[int]) -> None:
        """Kill some of the processes; the others must then end by themselves."""
        for victim in victims:
            self.processes[victim].kill()
        self.finish()

    def finish(self) -> list[int | None]:
        """Wait for all processes; returns their exit codes.

        Raises:
            TimeoutError: if one does not end.
        """
        for process in self.processes:
            process.join(TIMEOUT_S)
            if process.is_alive():
                process.kill()
                raise TimeoutError(f"{self.folder}: a process did not end")
        return [process.exitcode for process in self.processes]


def _places(size: int) -> list[dict[str, str]]:
    if size == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    return [
        {**common, "LOCAL_WORLD_SIZE": str(size), "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)
    ]


def digest(folder: Path) -> str:
    """Hash the weights, the optimizer's state and the course of the losses of a finished run."""
    import torch

    content = torch.load(folder / "model_final.pth", weights_only=True)
    result = hashlib.sha256()
    for name, value in sorted(content["model"].items()):
        result.update(name.encode() + value.reshape(-1).view(torch.uint8).numpy().tobytes())
    for number, state in sorted(content["optimizer"]["state"].items()):
        for name, value in sorted(state.items()):
            result.update(f"{number}{name}".encode() + value.reshape(-1).view(torch.uint8).numpy().tobytes())
    result.update(repr(content["optimizer"]["param_groups"]).encode())
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    result.update(repr([(line["iteration"], line.get("total_loss"), line.get("lr")) for line in lines]).encode())
    return result.hexdigest()


def output(folder: Path) -> str:
    """Return the last lines that the processes of a run wrote."""
    return "\n".join("\n".join(path.read_text().splitlines()[-25:]) for path in sorted(folder.glob("output*.txt")))


def trial(root: Path, name: str, number: int, size: int, dice: random.Random) -> tuple[str, str, str]:
    """Kill a run once and resume it; returns what was done, from where it went on, and the hash of the result."""
    folder = root / f"{size}_{number}"
    before, after = WORKERS[number % 3], WORKERS[(number + 1) % 3]
    in_write = number % 3 == 1
    step = dice.randrange(STEPS - 2)
    run = Run(folder, before, size, slow=in_write)
    run.wait_until(lambda: run.reached(step))
    if in_write:
        run.wait_until(run.is_writing)
    time.sleep(dice.uniform(0.0, WRITE_S if in_write else 0.1))
    torn = run.is_writing()
    victims = [0] if size == 1 else dice.choice([[0], [1], [0, 1]])
    run.kill(victims)
    found = (folder / "last_checkpoint").read_text() if (folder / "last_checkpoint").exists() else "nothing"
    codes = Run(folder, after, size).finish()
    if any(codes):
        print(output(folder))
        return f"exit codes {codes}", found, "failed"
    who = "" if size == 1 else f", rank {' and '.join(map(str, victims))}"
    what = f"after iteration {step}{' while writing' if torn else ''}{who}; workers {before}, then {after}"
    return what, found, digest(folder)


def series(root: Path, name: str, count: int, size: int, dice: random.Random) -> bool:
    """Run a reference and so many trials; print each, and how many ended like the reference."""
    reference = root / f"{size}_reference"
    started = time.perf_counter()
    codes = Run(reference, 0, size).finish()
    if any(codes):
        raise RuntimeError(f"the uninterrupted run failed with {codes}:\n{output(reference)}")
    expected = digest(reference)
    print(f"\n{name}: uninterrupted run in {time.perf_counter() - started:.1f} s, sha256 {expected[:16]}", flush=True)
    rows = []
    for number in range(count):
        what, found, result = trial(root, name, number, size, dice)
        rows.append((number + 1, what, found, result[:16], "yes" if result == expected else "NO"))
        print("  ", *rows[-1], flush=True)
    equal = sum(row[-1] == "yes" for row in rows)
    print_table(rows, ("", "killed", "resumed from", "sha256", "equal"), f"{name}: {equal} of {count} equal")
    return equal == count


def datasets_folder(root: Path) -> Path:
    """Find the balloons of the tests, or draw some."""
    known = os.environ.get("HOOKLINE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
    if (Path(known) / "balloon").is_dir():
        return Path(known).resolve()
    from hookline.data.datasets.synthetic_balloons import generate_balloons

    generate_balloons(root / "datasets")
    return root / "datasets"


def drive(trials: int, pairs: int, seed: int) -> bool:
    """Do both series in this process, which must not have used torch yet: it is forked."""
    for module in ("hookline.cli.job", "torch.utils.tensorboard"):  # imported once, before the forks
        importlib.import_module(module)
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="hookline_crash_") as folder:
        root = Path(folder)
        os.environ["HOOKLINE_DATASETS"] = str(datasets_folder(root))
        is_good = trials == 0 or series(root, "one process", trials, 1, dice)
        return (pairs == 0 or series(root, "two processes", pairs, 2, dice)) and is_good


def main() -> None:
    """Run 20 trials with one process and 10 with two, in a fresh interpreter.

    Raises:
        RuntimeError: if one of them ended with other weights.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if subprocess.run([sys.executable, "-m", "benchmarks.crash"], env=environment, check=False).returncode:
        raise RuntimeError("a killed and resumed run ended differently from one that never stopped")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="with one process (%(default)s)")
    parser.add_argument("--pairs", type=int, default=10, help="with two processes (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(not drive(args.trials, args.pairs, args.seed))
