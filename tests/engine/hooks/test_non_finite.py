"""Steps whose loss or gradients are not finite: nothing of the run changes by them, and their cause is named."""

import logging

import pytest
import torch
from torch import nn

from hookline.engine import HookBase, SimpleTrainer, get_event_storage
from hookline.engine.hooks import CallbackHook, EMAHook, NonFiniteGuard
from hookline.engine.losses import NonFiniteError


class Net(nn.Module):
    """A small net with batch norm and dropout; `gradient` spoils the gradient alone."""

    def __init__(self, gradient=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True))
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 1)
        self.gradient = gradient

    def forward(self, batch):
        x = torch.stack([sample["x"] for sample in batch])
        out = self.head(nn.functional.dropout(self.norm(self.stem(x)), 0.1, self.training))
        losses = {"loss_a": out.square().mean()}
        if self.gradient and any(sample.get("bad") for sample in batch):
            losses["loss_b"] = (out.sum() * 0.0).sqrt()  # 0, but its gradient is not
        return losses


def batches(count, bad=(), value=float("nan")):
    generator = torch.Generator().manual_seed(1)
    made = []
    for number in range(count):
        batch = [{"x": torch.randn(4, generator=generator), "file_name": f"{number}_{i}.jpg"} for i in range(4)]
        if number in bad:
            batch[2]["x"][1] = value
            batch[2]["bad"] = True
        made.append(batch)
    return made


class Skip(HookBase):
    """The reference: it knows the bad steps, throws their gradients away and the buffers back."""

    def __init__(self, bad):
        from hookline.engine.train_loop import SkipStep

        super().__init__()
        self.bad, self.error = bad, SkipStep

    def before_step(self):
        self.buffers = [b.clone() for b in self.trainer.model.buffers()]

    def after_backward(self):
        if self.trainer.iter in self.bad:
            for buffer, before in zip(self.trainer.model.buffers(), self.buffers, strict=True):
                buffer.copy_(before)
            raise self.error


def make(loader, hooks, optimizer=torch.optim.AdamW, gradient=False, **settings):
    torch.manual_seed(0)
    model = Net(gradient)
    trainer = SimpleTrainer(
        model, loader, optimizer(model.parameters(), lr=0.01, weight_decay=0.1), gather_metric_period=3, **settings
    )
    trainer.register_hooks(hooks)
    return trainer


def test_what_the_model_measures_is_not_counted_again_by_the_explanation():
    class Measuring(Net):
        def forward(self, batch):
            get_event_storage().put_scalar("calls", 1.0)
            return super().forward(batch)

    model = Measuring()
    trainer = SimpleTrainer(model, batches(6, bad=[3]), torch.optim.SGD(model.parameters(), lr=0.01))
    trainer.register_hooks([NonFiniteGuard(anomaly=True)])
    trainer.train(0, 6)
    assert [iteration for _, iteration in trainer.storage.history("calls").values()] == list(range(6))


def everything(trainer, ema):
    optimizer = [v for state in trainer.optimizer.state_dict()["state"].values() for v in state.values()]
    values = [*trainer.model.state_dict().values(), *ema.state_dict()["averages"].values(), *optimizer]
    return [value.clone() if isinstance(value, torch.Tensor) else value for value in values]


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_left_out_changes_nothing(accumulate, value):
    """Weights, optimizer, batch norm and averages before and after it are equal bit for bit, and so is the rest."""
    guard, ema = NonFiniteGuard(), EMAHook(0.9, warmup=False)
    seen = {}
    peek = CallbackHook(
        before_step=lambda t: seen.update({t.iter: everything(t, ema)}),
        after_step=lambda t: seen.update({(t.iter, "after"): everything(t, ema)}),
    )
    trainer = make(batches(16, bad=(8, 9), value=value), [guard, ema, peek], accumulate=accumulate)
    trainer.train(0, 16 // accumulate)
    bad = {8, 9} if accumulate == 1 else {4}
    for step in range(16 // accumulate):
        assert same(seen[step], seen[step, "after"]) == (step in bad), step
    reference, other = EMAHook(0.9, warmup=False), Skip(bad)
    trusted = make(batches(16), [other, reference], accumulate=accumulate)
    trusted.train(0, 16 // accumulate)
    assert same(everything(trainer, ema), everything(trusted, reference))
    assert trainer.storage.latest()["non_finite_steps"] == (len(bad), max(bad))
    steps = [iteration for _, iteration in trainer.storage.history("total_loss").values()]
    assert steps == [step for step in range(16 // accumulate) if step not in bad]


def test_a_gradient_alone_is_enough(caplog):
    guard = NonFiniteGuard(anomaly=True)
    trainer = make(batches(4, bad=(2,), value=0.5), [guard], gradient=True)
    trainer.train(0, 4)
    assert trainer.storage.latest()["non_finite_steps"] == (1.0, 2)
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())
    (report,) = [m for m in caplog.messages if "is not finite at iteration 2" in m]
    assert report.startswith("a gradient is not finite")
    assert "head (Linear) got 4 x NaN" in report
    assert "gradients: 6 of 6 are not finite; norms of the first 6:" in report
    assert "  stem.0.weight: nan" in report


def test_without_it_the_momentum_would_move():
    """What naive skipping by zero gradients would do is told apart by the identity test: AdamW moves all the same."""
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    model(batches(1)[0])["loss_a"].backward()
    optimizer.step()
    before = model.head.weight.clone()
    for parameter in model.parameters():
        parameter.grad.zero_()
    optimizer.step()
    assert not torch.equal(before, model.head.weight)


def test_the_report_names_module_and_files(caplog):
    class Overflow(nn.Module):
        def forward(self, x):
            return x.exp()

    trainer = make(batches(3, bad=(1,), value=200.0), [NonFiniteGuard(anomaly=True)])
    trainer.model.stem[1] = Overflow()
    with torch.no_grad():
        trainer.model.stem[0].weight.fill_(1.0)
    trainer.train(0, 3)
    (report,) = [m for m in caplog.messages if "not finite at iteration 1" in m]
    assert "stem.1 (Overflow) produced 8 x inf (of 32 values) in forward; the largest number in its input was" in report
    assert "1_2.jpg" in report
    assert "batch itself" not in report


def test_a_bad_batch_is_named(caplog):
    make(batches(3, bad=(1,)), [NonFiniteGuard(anomaly=True)]).train(0, 3)
    (report,) = [m for m in caplog.messages if "not finite at iteration 1" in m]
    assert "the batch itself holds 1 x NaN (of 4 values): sample 2 of 1_2.jpg, 'x'" in report
    assert "stem.0 (Linear) produced 8 x NaN (of 32 values) in forward; its input was not finite already" in report


def test_a_module_that_computes_by_itself_is_blamed_and_not_the_one_it_calls(caplog):
    """Such as a convolution that calls its norm."""

    class Normed(nn.Linear):
        def __init__(self):
            super().__init__(4, 8)
            self.norm = nn.BatchNorm1d(8)

        def forward(self, x):
            return self.norm(super().forward(x).exp())

    trainer = make(batches(3, bad=(1,), value=500.0), [NonFiniteGuard(anomaly=True)])
    trainer.model.stem[0] = Normed()
    with torch.no_grad():
        trainer.model.stem[0].weight.fill_(1.0)
    trainer.train(0, 3)
    (report,) = [m for m in caplog.messages if "not finite at iteration 1" in m]
    words = "stem.0 (Normed) produced 8 x inf (of 32 values) in forward; the largest number in its input was 500"
    assert f"{words}; seen where it calls stem.0.norm" in report


def test_too_many_end_the_run():
    guard = NonFiniteGuard(max_skips=2, window=5)
    with pytest.raises(NonFiniteError, match=r"(?s)iteration 8.*8_2\.jpg.*3 such steps in 5 iterations, 2 are") as info:
        make(batches(12, bad=(0, 5, 6, 8)), [guard]).train(0, 12)
    assert info.value.iteration == 8


def test_its_count_survives_a_resume():
    guard = NonFiniteGuard(max_skips=2)
    make(batches(4, bad=(1, 3)), [guard]).train(0, 4)
    again = NonFiniteGuard(max_skips=2)
    again.load_state_dict(guard.state_dict())
    with pytest.raises(NonFiniteError, match="3 such steps"):
        make(batches(1, bad=(0,)), [again]).train(0, 1)


def test_only_named_steps_are_watched():
    guard = NonFiniteGuard(every_step=False)
    guard.watch(2, 3)
    make(batches(4, bad=(3,)), [guard]).train(0, 4)
    with pytest.raises(NonFiniteError, match="loss is not finite at iteration 1"):
        make(batches(4, bad=(1,)), [NonFiniteGuard(every_step=False)]).train(0, 4)


def test_the_gathering_goes_on_when_its_step_is_left_out():
    trainer = make(batches(6, bad=(2, 5)), [NonFiniteGuard()])
    trainer.train(0, 6)
    assert not trainer._ledger._records


def test_the_scaler_counts_its_own():
    """An overflow of the gradients belongs to fp16's scaler, a loss that is not finite does not touch its scale."""
    from hookline.engine.precision import FP16

    class Half(FP16):
        def forward(self):
            from contextlib import nullcontext

            return nullcontext()

    precision = Half("cpu", torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=1000))
    ema = EMAHook(0.5, warmup=False)
    averages = {}
    peek = CallbackHook(
        after_step=lambda t: averages.update({t.iter: ema.state_dict()["averages"]["head.bias"].clone()})
    )
    loader = batches(6, bad=(1, 3))
    loader[3][2]["x"][1] = 0.5  # a gradient alone
    guard = NonFiniteGuard()
    trainer = make(loader, [guard, ema, peek], optimizer=torch.optim.SGD, gradient=True, precision=precision)
    trainer.model.gradient = True
    trainer.train(0, 6)
    latest = trainer.storage.latest()
    assert latest["non_finite_steps"] == (1.0, 1)
    assert latest["skipped_steps"][0] == 1.0
    assert latest["grad_scale"][0] == 2.0**7
    assert torch.equal(averages[0], averages[1])
    assert torch.equal(averages[2], averages[3])
    assert not torch.equal(averages[1], averages[2])


@pytest.mark.parametrize("settings", [{"max_skips": -1}, {"window": 0}])
def test_limits_are_checked(settings):
    with pytest.raises(ValueError, match="max_skips"):
        NonFiniteGuard(**settings)


def test_a_search_that_fails_does_not_hide_the_step(caplog):
    trainer = make(batches(2, bad=(1,)), [NonFiniteGuard(anomaly=True)])
    calls = []
    forward = trainer.model.forward

    def moody(batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("no second time")
        return forward(batch)

    trainer.model.forward = moody
    with caplog.at_level(logging.WARNING):
        trainer.train(0, 2)
    assert "could not look for the module" in caplog.text
    assert "the step is left out (1 so far)" in caplog.text
