"""Distributions of parameters and gradients."""

import pytest
import torch

from hookline.engine.hooks import CallbackHook, HistogramHook


@pytest.fixture
def recorded():
    """Collect the histograms of each step, as a writer does."""
    found = []

    def collect(trainer):
        found.extend(trainer.storage.histograms())
        trainer.storage.clear_histograms()

    return found, CallbackHook(after_step=collect)


def test_timeline_and_names(make_trainer, recorded):
    found, collect = recorded
    make_trainer([HistogramHook(3), collect]).train(0, 7)
    names = ["gradients/linear.weight", "gradients/linear.bias", "parameters/linear.weight", "parameters/linear.bias"]
    assert [(h.iteration, h.name) for h in found] == [(i, name) for i in (2, 5) for name in names]


def test_values_are_those_of_the_step(make_trainer, recorded):
    found, collect = recorded
    seen = {}
    note = CallbackHook(
        after_backward=lambda t: seen.update(gradient=t.model.linear.weight.grad.clone()),
        after_step=lambda t: seen.update(parameter=t.model.linear.weight.detach().clone()),
    )
    make_trainer([note, HistogramHook(1, bins=4), collect]).train(0, 1)
    for kind, name in (("gradient", "gradients/linear.weight"), ("parameter", "parameters/linear.weight")):
        (fields,) = [h.fields for h in found if h.name == name]
        assert (fields["min"], fields["max"]) == tuple(float(edge) for edge in torch.aminmax(seen[kind]))
        assert sum(fields["bucket_counts"]) == fields["num"] == 8


def test_frozen_parameters_and_switches(make_trainer, two_losses, recorded):
    found, collect = recorded
    model = two_losses()
    model.linear.bias.requires_grad_(False)
    make_trainer([HistogramHook(1, gradients=False), collect], model=model).train(0, 1)
    assert [h.name for h in found] == ["parameters/linear.weight"]


def test_what_is_not_finite_is_left_out(make_trainer, recorded):
    found, collect = recorded

    def spoil(trainer):
        trainer.model.linear.weight.grad[0, 0] = float("nan")
        trainer.model.linear.bias.grad[:] = float("inf")

    make_trainer([CallbackHook(after_backward=spoil), HistogramHook(1, parameters=False), collect]).train(0, 1)
    assert [(h.name, h.fields["num"]) for h in found] == [("gradients/linear.weight", 7)]


def test_training_does_not_change(make_trainer):
    weights = []
    for hooks in ([], [HistogramHook(1)]):
        trainer = make_trainer(hooks)
        trainer.train(0, 5)
        weights.append(trainer.model.linear.weight.detach().clone())
    assert torch.equal(*weights)
