"""MLflow: a real store in SQLite, read back by MLflow's own client."""

import json
import math
import socket
import time

import pytest
import torch

from hookline.engine import EventStorage, JSONWriter
from hookline.engine.hooks import PeriodicWriter
from hookline.engine.writers_mlflow import MLflowWriter


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pytest.importorskip("mlflow")


def test_a_server_that_is_down_neither_stops_nor_slows_training(make_trainer, tmp_path, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again below: nobody listens there
    writer = MLflowWriter(tmp_path, tracking_uri=f"http://127.0.0.1:{port}")
    times = []
    step = writer.write

    def timed():
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)

    writer.write = timed
    start = time.perf_counter()
    trainer = make_trainer([PeriodicWriter([JSONWriter(tmp_path / "metrics.json"), writer], period=1)])
    trainer.train(0, 30)
    assert trainer.iter == 30
    assert sorted(times)[len(times) // 2] < 0.01
    assert time.perf_counter() - start < 40.0  # importing mlflow, and the last try
    told = [record.getMessage() for record in caplog.records if "mlflow" in record.getMessage()]
    assert len(told) == 2
    assert f"nothing answers at http://127.0.0.1:{port}" in told[0]
    assert f"entries were not sent. The scalars are in {tmp_path / 'metrics.json'}" in told[1]


def test_a_setting_that_is_set_back_is_told_as_the_newest(tmp_path):
    class Client:
        def __init__(self):
            self.params, self.tags = {}, {}

        def log_batch(self, run_id, params=(), tags=()):
            self.params |= {param.key: param.value for param in params}
            self.tags |= {tag.key: tag.value for tag in tags}

    client, told = Client(), []
    for lr in (1, 1, 2, 2, 1, 3):
        writer = MLflowWriter(tmp_path, config={"lr": lr, "decay": 0})
        writer._client = client
        writer._log_config(dict(client.params), dict(client.tags))
        told.append(client.tags.get("changed.lr"))
    assert told == [None, None, "2", "2", "1", "3"]
    assert client.params == {"lr": "1", "decay": "0"}
    assert client.tags.keys() == {"changed.lr"}


@pytest.mark.slow
def test_everything_is_read_back(tmp_path):
    from mlflow import MlflowClient

    settings = {
        "tracking_uri": f"sqlite:///{tmp_path}/ml.db",
        "experiment": "toys",
        "artifact_location": str(tmp_path / "files"),
        "run_name": "first",
        "tags": {"who": "me"},
        "timeout_s": 120.0,
    }
    odd = 0.1 + 0.2
    (tmp_path / "model_final.pth").write_bytes(b"weights")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    for start, config in ((0, {"lr": 0.1, "long": "x" * 7000}), (2, {"lr": 0.2, "long": "x" * 7000, "new": True})):
        # 2 to 3 come again
        writers = [JSONWriter(tmp_path / "metrics.json"),
                   MLflowWriter(tmp_path, config=config, log_checkpoints="last", **settings)]  # fmt: skip
        with EventStorage(start) as storage:
            for writer in writers:
                writer.begin(start)
            for storage.iter in range(start, start + 4):
                storage.put_scalars(smoothing_hint=False, odd=odd * storage.iter, **{"AP (%)": 1.0, "bbox/AP-cup": 2.0})
                storage.put_scalar("nothing", math.nan, smoothing_hint=False)
                storage.put_image("seen/a b", torch.zeros(3, 4, 6))
                for writer in writers:
                    writer.write()
                storage.clear_images()
        for writer in writers:
            writer.conclude(start == 2)
            writer.close()
    client = MlflowClient(settings["tracking_uri"])
    (run,) = client.search_runs([client.get_experiment_by_name("toys").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.tags["who"]) == ("first", "FINISHED", "me")
    assert run.data.params == {"lr": "0.1", "long": "x" * 6000, "new": "True"}
    assert run.data.tags["changed.lr"] == "0.2"
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert [(m.step, m.value) for m in history["odd"]] == [(line["iteration"], line["odd"]) for line in lines]
    assert [m.step for m in history["odd"]] == list(range(6))
    assert [m.step for m in history["AP ___"]] == [m.step for m in history["bbox/AP-cup"]] == list(range(6))
    assert all(math.isnan(m.value) for m in history["nothing"])
    pictures = client.list_artifacts(run.info.run_id, "pictures/seen/a b")
    assert [file.path.split("/")[-1] for file in pictures] == [f"{i:07d}.png" for i in range(6)]
    (checkpoint,) = client.list_artifacts(run.info.run_id, "checkpoints")
    assert (checkpoint.path, checkpoint.file_size) == ("checkpoints/model_final.pth", 7)
