import json
import logging

import pytest
import torch

from hookline.engine.hooks import CallbackHook, TorchMemoryStats, TorchProfiler


def test_traces_of_the_chosen_iterations(make_trainer, tmp_path):
    make_trainer([TorchProfiler(lambda t: t.iter in (1, 3), tmp_path, save_tensorboard=False)]).train(0, 5)
    traces = sorted((tmp_path / "log").iterdir())
    assert [p.name for p in traces] == ["profiler-trace-iter1-rank0.json", "profiler-trace-iter3-rank0.json"]
    names = {event.get("name") for event in json.loads(traces[0].read_text())["traceEvents"]}
    assert "aten::linear" in names


def test_traces_for_tensorboard(make_trainer, tmp_path):
    make_trainer([TorchProfiler(lambda t: t.iter == 0, tmp_path)]).train(0, 2)
    (trace,) = (tmp_path / "log").iterdir()
    assert trace.name.startswith("worker0.")


def test_nothing_chosen_writes_nothing(make_trainer, tmp_path):
    make_trainer([TorchProfiler(lambda t: False, tmp_path)]).train(0, 2)
    assert not list(tmp_path.iterdir())


def test_a_failing_step_leaves_no_profiler_running(make_trainer, tmp_path):
    def fail(trainer):
        raise KeyError

    with pytest.raises(KeyError):
        make_trainer([TorchProfiler(lambda t: True, tmp_path), CallbackHook(after_backward=fail)]).train(0, 2)
    make_trainer([TorchProfiler(lambda t: t.iter == 0, tmp_path / "again")]).train(0, 1)


def test_memory_without_a_gpu_is_said_once(make_trainer, caplog):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with caplog.at_level(logging.INFO):
        make_trainer([TorchMemoryStats(period=1)]).train(0, 3)
    assert caplog.text.count("no GPU") == 1


def test_memory_timeline(make_trainer, caplog, monkeypatch):
    stats = {f"{what}_bytes.all.{now}": 2**21 for what in ("allocated", "reserved") for now in ("current", "peak")}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: {**stats, "num_alloc_retries": 0})
    monkeypatch.setattr(torch.cuda, "memory_summary", lambda: "the summary")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    with caplog.at_level(logging.INFO):
        make_trainer([TorchMemoryStats(period=2, max_runs=2)]).train(0, 10)
    lines = [m for m in caplog.messages if "current_allocated" in m]
    assert [line.split()[1] for line in lines] == ["1", "3"]
    assert "current_allocated: 2M" in lines[0]
    assert caplog.messages.count("the summary") == 1
