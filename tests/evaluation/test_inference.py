import pytest
import torch
from torch import nn

from hookline.evaluation import (
    DatasetEvaluator,
    EvaluationInterrupted,
    inference_context,
    inference_on_dataset,
    progress,
)


class Sum(DatasetEvaluator):
    def reset(self):
        self.total = 0

    def process(self, inputs, outputs):
        assert not any(output.requires_grad for output in outputs)
        self.total += sum(output.item() for output in outputs)

    def evaluate(self):
        return {"sum": {"total": self.total}}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.BatchNorm1d(1).eval()
        self.layer = nn.Linear(1, 1)
        self.modes = []

    def forward(self, inputs):
        self.modes.append((self.training, self.layer.training))
        return [self.layer(x) for x in inputs]


LOADER = [[torch.ones(1)], [torch.ones(1), torch.ones(1)]]


def test_results_and_modes():
    model = Model().train()
    model.frozen.eval()
    results = inference_on_dataset(model, LOADER, Sum())
    expected = 3 * (model.layer.weight + model.layer.bias).item()
    assert results["sum"]["total"] == pytest.approx(expected)
    assert model.modes == [(False, False)] * 2
    assert (model.training, model.layer.training, model.frozen.training) == (True, True, False)
    assert torch.is_grad_enabled()


def test_modes_return_after_an_error():
    model = Model().train()
    with pytest.raises(ZeroDivisionError), inference_context(model):
        1 / model.training  # eval mode: False
    assert model.training
    assert model.layer.training


def test_any_callable_and_any_evaluators():
    seen = []
    results = inference_on_dataset(lambda batch: batch, LOADER, [Sum(), Recorder(seen)])
    assert results["sum"]["total"] == 3
    assert seen == [1, 2]
    assert inference_on_dataset(lambda batch: batch, LOADER, None) == {}


class Recorder(DatasetEvaluator):
    def __init__(self, seen):
        self.seen = seen

    def process(self, inputs, outputs):
        self.seen.append(len(inputs))


def test_callbacks_come_in_order():
    calls = []
    names = ["on_start", "before_inference", "after_inference", "on_end"]
    inference_on_dataset(lambda b: b, LOADER, None, {name: lambda name=name: calls.append(name) for name in names})
    assert calls == [names[0], *names[1:3] * 2, names[3]]
    with pytest.raises(ValueError, match="unknown callback 'on_begin'"):
        inference_on_dataset(lambda b: b, LOADER, None, {"on_begin": print})


def test_an_empty_share_of_the_data(caplog):
    with caplog.at_level("INFO"):
        assert inference_on_dataset(lambda b: b, [], Sum()) == {"sum": {"total": 0}}


def test_a_loader_without_length():
    assert inference_on_dataset(lambda b: b, iter(LOADER), Sum())["sum"]["total"] == 3


def test_log_lines_tell_speed_and_remaining_time(caplog, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_PERIOD_S", 0.0)
    with caplog.at_level("INFO"):
        inference_on_dataset(lambda b: b, [[torch.ones(1)]] * 8, Sum())
    lines = [line for line in caplog.messages if line.startswith("Inference done")]
    assert [line.split(".")[0] for line in lines] == [f"Inference done {n}/8" for n in (6, 7, 8)]
    assert all("ETA=0:00:00" in line and "Dataloading" in line for line in lines)
    assert any("Total inference pure compute time" in line for line in caplog.messages)


def test_a_terminal_gets_a_bar(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **kwargs):
            self.total, self.count, self.closed = kwargs["total"], 0, False
            bars.append(self)

        def update(self):
            self.count += 1

        def close(self):
            self.closed = True

    monkeypatch.setattr(progress, "tqdm", Bar)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    inference_on_dataset(lambda b: b, LOADER, None)
    assert [(bar.total, bar.count, bar.closed) for bar in bars] == [(2, 2, True)]


def test_it_stops_before_a_batch():
    seen = []
    model = Model().train()
    with pytest.raises(EvaluationInterrupted):
        inference_on_dataset(model, LOADER, Recorder(seen), should_stop=lambda: len(seen) == 1)
    assert seen == [1]
    assert model.training
    assert inference_on_dataset(lambda b: b, LOADER, Sum(), should_stop=lambda: False)["sum"]["total"] == 3
