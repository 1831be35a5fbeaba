"""W&B offline, in a process of its own, since wandb's threads stay; its file read by us and by W&B's own reader."""

import json
import os
import subprocess
import sys

import pytest

from hookline.engine.wandb_file import read_history

QUIET = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "OMP_NUM_THREADS": "1"}
SCRIPT = """
import sys
import torch
from hookline.engine import EventStorage, JSONWriter
from hookline.engine.writers_wandb import WandbWriter

folder, start, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
config = {"optimizer.lr": 0.1 + start, "model": "tiny"}
writers = [JSONWriter(folder + "/metrics.json"),
           WandbWriter(folder, config=config, project="toys", log_checkpoints="best")]
with EventStorage(start) as storage:
    for writer in writers:
        writer.begin(start)
    for storage.iter in range(start, end):
        storage.put_scalars(smoothing_hint=False, third=storage.iter / 3, **{f"loss_{i}": i * 0.1 for i in range(10)})
        if storage.iter % 50 == 0:
            storage.put_image("seen", torch.zeros(3, 4, 6, dtype=torch.uint8))
        for writer in writers:
            writer.write()
        storage.clear_images()
for writer in writers:
    writer.conclude(True)
    writer.close()
"""


def run(*command):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_everything_is_read_back(tmp_path):
    pytest.importorskip("wandb")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model_best.pth").write_bytes(b"weights")
    run("-c", SCRIPT, folder, 0, 120)
    run("-c", SCRIPT, folder, 100, 150)  # 100 to 119 come again
    rows, records = [], []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        assert file.stat().st_size > 32768 or rows  # more than a block of the file
        shown = [json.loads(line) for line in run("-m", "wandb", "leet", "inspect", "--json", file).splitlines()]
        records += shown
        ours = read_history(file)
        theirs = [record["history"]["item"] for record in shown if record["type"] == "history"]
        assert [row["third"] for row in ours if "third" in row] == [row["third"] for row in theirs if "third" in row]
        rows += ours
        content = file.read_bytes()
        for length in (0, 7, 10, 1000, 32768, len(content) - 3):  # a kill may end it anywhere
            (tmp_path / "torn.wandb").write_bytes(content[:length])
            torn = read_history(tmp_path / "torn.wandb")
            assert torn == ours[: len(torn)]
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    scalars = [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows if "third" in row]
    assert scalars == lines
    assert [line["iteration"] for line in lines] == list(range(150))
    assert [row["iteration"] for row in rows if "seen" in row] == [0, 50, 100]
    steps = [row["_step"] for row in rows]
    assert steps == sorted(set(steps)), "W&B's own steps go on, too"
    runs = [record["run"] for record in records if record["type"] == "run"]
    assert {(each["run_id"], each["project"]) for each in runs} == {
        ((folder / "run_id.wandb").read_text().strip(), "toys")
    }
    assert [each["config"]["update"]["optimizer.lr"] for each in runs] == [0.1, 100.1]
    assert any(record["type"] == "metric" and record["metric"].get("step_metric") == "iteration" for record in records)
    assert "model_best.pth" in json.dumps([record for record in records if "artifact" in record["type"]])
