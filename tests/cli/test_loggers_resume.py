"""Runs that are killed and resumed, as JSON, TensorBoard, W&B and MLflow tell them when they are read back."""

import json
import os
import signal
import struct
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiny_parts

CLOCKS = {"time", "data_time", "eta_seconds"}  # no two runs agree on these
MORE = {
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@pytest.fixture
def train(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(tiny_parts.RECIPE)

    def train(folder, *options, loggers=True, **environment):
        mlflow = f"{{tracking_uri: 'sqlite:///{folder}.db', experiment: toys, artifact_location: '{folder}_files'}}"
        services = (f"train.loggers.mlflow={mlflow}", "train.loggers.wandb={project: toys}") if loggers else ()
        flags = ["--config-file", recipe, "--work-dir", folder]
        return subprocess.run(
            [sys.executable, "-m", "hookline.cli.train", *flags, *services, *options],
            env={**os.environ, **MORE, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return train


def read_json(folder):
    curves = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        row = json.loads(line)
        iteration = row.pop("iteration")
        for name, value in row.items():
            curves.setdefault(name, []).append((iteration, value))
    return curves


def read_tensorboard(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    curves = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    images = {name: [e.step for e in events.Images(name)] for name in events.Tags()["images"]}
    return curves, images


def read_wandb(folder):
    """Read all files of the run by W&B's own reader, ``wandb leet inspect``."""
    curves, files = {}, sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    for file in files:
        inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        shown = subprocess.run(inspect, env={**os.environ, **MORE}, capture_output=True, text=True, check=False)
        for record in map(json.loads, shown.stdout.splitlines()):
            row = record["history"]["item"] if record.get("type") == "history" else {}
            for name, value in row.items():
                if not name.startswith(("_", "seen")) and name != "iteration":
                    curves.setdefault(name, []).append((row["iteration"], value))
    return curves


def read_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}.db")
    runs = client.search_runs([client.get_experiment_by_name("toys").experiment_id])
    assert len(runs) == 1
    run = runs[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == "0.1"
    curves = {}
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        curves[name] = sorted((metric.step, metric.value) for metric in history)
    return curves


def steady(curves):
    return {name: curve for name, curve in curves.items() if name not in CLOCKS}


def single(curves):
    return {name: [(step, struct.unpack("f", struct.pack("f", value))[0]) for step, value in curve]
            for name, curve in curves.items()}  # fmt: skip


@pytest.mark.slow
def test_four_kills_leave_one_curve_in_every_logger(train, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(whole).returncode == 0
    for where in (
        {"KILL_IN_STEP": "3"},  # before the first checkpoint
        {"KILL_IN_EVALUATION": "9"},  # between a checkpoint and the writers
        {"KILL_IN_STEP": "13"},  # four steps behind the newest checkpoint
        {"KILL_IN_STEP": "18"},
    ):
        assert train(killed, "--resume", **where).returncode == -signal.SIGKILL
    last = train(killed, "--resume")
    assert last.returncode == 0, last.stderr
    expected = read_json(whole)
    assert [step for step, _ in expected["lr"]] == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert [step for step, _ in expected["toy/score"]] == [4, 9, 14, 20]
    assert steady(read_json(killed)) == steady(expected)
    for folder in (whole, killed):
        ours = read_json(folder)
        board, images = read_tensorboard(folder)
        assert "failed in" not in (folder / "log.txt").read_text()
        assert images == {"seen": [4, 4, 9, 9, 14, 14, 20, 20]}
        assert board == single(ours)
        assert read_mlflow(folder) == ours
        assert read_wandb(folder) == ours
