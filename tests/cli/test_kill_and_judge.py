"""Best checkpoints and early stopping through ``kill -9`` and ``--resume``: as if the run had never been killed."""

import json
import os
import subprocess
import sys

import pytest

DRIVER = """
import contextlib, hashlib, json, multiprocessing, os, signal, sys
from pathlib import Path

import quality_parts
import hookline.cli.job
from hookline.engine import Checkpointer, checkpoint_write, hooks

root = Path(sys.argv[1])
(root / "recipe.py").write_text(quality_parts.RECIPE)
SETTINGS = [
    "train.eval_period=4", "train.checkpointer.period=6", "train.validation_loss={period: 3}",
    "train.checkpointer.save_best=[toy/AP, validation/total_loss]", "train.checkpointer.max_to_keep=1",
    "train.early_stopping={metric: toy/AP, patience: 3}",
]


def kill_at_call(owner, name, number, when=lambda *args: True):
    method, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.extend([1] if when(*args) else [])
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args, **kwargs)

    setattr(owner, name, counted)


def kill_in_write(number):
    original, calls = checkpoint_write.atomic_open, []

    @contextlib.contextmanager
    def killing(*args):
        with original(*args) as file:
            yield file
            calls.append(1)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)  # complete, but not yet renamed

    checkpoint_write.atomic_open = killing


KILLS = {
    "in a step": lambda: kill_at_call(quality_parts.Factor, "forward", 18, lambda model, batch: model.training),
    "after a checkpoint, before its validation loss": lambda: kill_at_call(hooks.ValidationLossHook, "measure", 6),
    "in an evaluation": lambda: kill_at_call(quality_parts.Quality, "process", 8),
    "in an evaluation behind a checkpoint": lambda: kill_at_call(quality_parts.Quality, "process", 17),
    "between evaluation and best": lambda: kill_at_call(hooks.BestCheckpointer, "_look", 7),
    "between best and early stopping": lambda: kill_at_call(hooks.EarlyStopping, "_look", 5),
    "between all that and the log": lambda: kill_at_call(hooks.PeriodicWriter, "after_step", 24),
    "writing a best checkpoint": lambda: kill_in_write(9),
    "writing another one": lambda: kill_in_write(16),
    "before the stop": lambda: kill_at_call(Checkpointer, "save", 1, lambda self, name: name == "model_final"),
    "after the stop": lambda: kill_at_call(hooks.PeriodicWriter, "after_train", 1),
}


def train(folder, kill):
    log = os.open(root / f"{folder}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    if kill:
        KILLS[kill]()
    sys.exit(hookline.cli.train.main(
        ["--config-file", str(root / "recipe.py"), "--work-dir", str(root / folder), "--resume", *SETTINGS]))


def run(folder, kill=None):
    process = multiprocessing.get_context("fork").Process(target=train, args=(folder, kill))
    process.start()
    process.join(300)
    return process.exitcode


import hookline.cli.train
codes = {"whole": [run("whole")]}
for kill in KILLS:
    codes[kill] = [run(kill, kill), run(kill)]

import torch  # used only now: no thread of it was there to be lost in a fork

def digest(file):
    content = torch.load(file, weights_only=True)
    sha = hashlib.sha256(str(content["iteration"]).encode())
    for name, value in sorted(content["model"].items()):
        sha.update(name.encode() + value.numpy().tobytes())
    return sha.hexdigest()

def judged(folder):
    states = torch.load(root / folder / "model_final.pth", weights_only=True)["hooks"]
    return {key: state for key, state in states.items() if key.startswith(("Best", "Early"))}

found = {}
for name in codes:
    lines = [json.loads(line) for line in (root / name / "metrics.json").read_text().splitlines()]
    noisy = ("time", "data_time", "eta_seconds", "max_memory")
    found[name] = {
        "codes": codes[name],
        "files": {path.name: digest(path) for path in sorted((root / name).glob("*.pth"))},
        "judged": judged(name),
        "curve": [row for line in lines if len(row := {k: v for k, v in line.items() if not k.startswith(noisy)}) > 1],
        "log": (root / name / "log.txt").read_text()[-3000:],
    }
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_killed_run_is_judged_as_one_that_was_not(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    path = os.pathsep.join(sys.path)
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, tmp_path / "driver.py", tmp_path], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    whole = found.pop("whole")
    assert whole["codes"] == [0]
    assert set(whole["files"]) == {
        *("model_best_toy_AP.pth", "model_best_validation_total_loss.pth", "model_final.pth"),
        max(name for name in whole["files"] if name[6].isdigit()),
    }
    stop = whole["judged"]["EarlyStopping.toy/AP"]
    assert stop["stopped"]
    assert stop["best"] == whole["judged"]["BestCheckpointer.toy/AP"]["best_metric"] > 99
    last = [line["iteration"] for line in whole["curve"] if "total_loss" in line][-1]
    assert stop["best_iter"] == last - 12 < 47  # three more evaluations, and long before the end of 60 steps
    best_of = [line["iteration"] for line in whole["curve"] if line.get("toy/AP") == stop["best"]]
    assert best_of == [stop["best_iter"]]
    for name, run in found.items():
        assert run["codes"] == [-9, 0], (name, run["log"])
        assert run["files"] == whole["files"], name
        assert run["judged"] == whole["judged"], name
        iterations = [line["iteration"] for line in run["curve"]]
        assert iterations == sorted(set(iterations)), name
        assert run["curve"] == whole["curve"], name
