import copy
import logging
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hookline.engine import ClipGradNorm, ClipGradValue, HookBase, SimpleTrainer, TrainerBase, hooks
from hookline.engine.precision import FP16


class Fixed(nn.Module):
    """Returns what it is told."""

    def __init__(self, output):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))
        self.output = output

    def forward(self, batch):
        return self.output(self.w, batch)


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class TestStep:
    def test_equals_a_loop_by_hand(self, make_trainer, two_losses, stream):
        trainer = make_trainer(seed=None)
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        trainer.train(0, 10)
        model = two_losses()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        batches = iter(stream())
        for _ in range(10):
            losses = model(next(batches))
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
        assert same(weights(trainer), [p.detach() for p in model.parameters()])

    def test_gradients_may_be_cleared_early(self, make_trainer):
        late, early = make_trainer(), make_trainer(zero_grad_before_forward=True)
        late.train(0, 5)
        early.train(0, 5)
        assert same(weights(late), weights(early))

    def test_a_scalar_is_the_total_loss(self, make_trainer):
        trainer = make_trainer(model=Fixed(lambda w, b: w * b), loader=[2.0], lr=0.0)
        trainer.train(0, 2)
        assert trainer.storage.history("total_loss").values() == [(2.0, 0), (2.0, 1)]
        assert "time" not in trainer.storage.latest()

    def test_order_within_a_step(self, make_trainer):
        """Gradients are complete in after_backward, not yet clipped, and the weights not yet updated."""
        seen = {}

        class Look(HookBase):
            def after_backward(self):
                seen["grad"] = float(self.trainer.model.w.grad)
                seen["w"] = self.trainer.model.w.item()

            def after_step(self):
                seen["clipped"] = float(self.trainer.model.w.grad)
                seen["after"] = self.trainer.model.w.item()

        trainer = make_trainer(
            [Look()], model=Fixed(lambda w, b: {"loss": w * b}), loader=[4.0, 8.0], lr=1.0, accumulate=2, grad_clip=1.0
        )
        trainer.train(0, 1)
        assert seen["grad"] == 6.0
        assert seen["w"] == 1.0
        assert seen["clipped"] == pytest.approx(1.0)
        assert seen["after"] == pytest.approx(0.0, abs=1e-6)
        assert trainer.storage.latest()["grad_norm"] == (6.0, 0)


class TestRefusals:
    @pytest.mark.parametrize("name", ["accumulate", "gather_metric_period"])
    def test_counts_must_be_positive(self, make_trainer, name):
        with pytest.raises(ValueError, match=name):
            make_trainer(**{name: 0})

    def test_wrong_output(self, make_trainer):
        with pytest.raises(TypeError, match="list"):
            make_trainer(model=Fixed(lambda w, b: [w]), loader=[1]).train(0, 1)

    def test_evaluation_mode(self, make_trainer):
        trainer = make_trainer([hooks.CallbackHook(after_step=lambda t: t.iter == 2 and t.model.eval())])
        with pytest.raises(RuntimeError, match=r"iteration 3.*model.train\(\)"):
            trainer.train(0, 10)

    def test_empty_loader(self, make_trainer):
        with pytest.raises(RuntimeError, match="gave no batch"):
            make_trainer(loader=[]).train(0, 1)

    def test_the_model_is_put_into_training_mode(self, two_losses, make_trainer):
        model = two_losses().eval()
        make_trainer(model=model)
        assert model.training


class TestFiniteLosses:
    def poisoned(self, make_trainer, stream, hook_list=(), at=7, **settings):
        class Bad(nn.Module):
            def __init__(self):
                super().__init__()
                self.w = nn.Parameter(torch.ones(()))

            def forward(self, batch):
                name = batch[0]["file_name"]
                bad = name == f"{2 * at:04d}.jpg"
                return {"loss_ok": self.w * 1.0, "loss_bad": self.w * (float("nan") if bad else 0.5)}

        return make_trainer(hook_list, model=Bad(), loader=stream(), lr=0.0, **settings)

    def test_reported_at_the_next_reading_with_its_files(self, make_trainer, stream):
        trainer = self.poisoned(make_trainer, stream)
        with pytest.raises(FloatingPointError) as error:
            trainer.train(0, 100)
        assert trainer.iter == 19
        assert "iteration 7" in str(error.value)
        assert "loss_bad=nan" in str(error.value)
        assert "loss_ok=1" in str(error.value)
        assert "0014.jpg, 0015.jpg" in str(error.value)

    @pytest.mark.parametrize("kind", ["periodic", "best", "final"])
    def test_no_checkpoint_before_the_losses_were_looked_at(self, make_trainer, stream, kind):
        saved = []

        class Saver:
            def save(self, name, **rest):
                saved.append(name)

        hook = {
            "periodic": hooks.PeriodicCheckpointer(Saver(), 4),
            "best": hooks.BestCheckpointer(4, Saver(), "m"),
            "final": hooks.PeriodicCheckpointer(Saver(), 0),
        }[kind]
        metric = hooks.CallbackHook(after_step=lambda t: t.storage.put_scalar("m", t.iter, smoothing_hint=False))
        trainer = self.poisoned(make_trainer, stream, [metric, hook], gather_metric_period=1000)
        with pytest.raises(FloatingPointError, match="iteration 7"):
            trainer.train(0, 10)
        assert saved == {"periodic": ["model_0000003"], "best": ["model_best"], "final": []}[kind]

    def test_reading_shows_the_values_without_raising(self, make_trainer, stream):
        values = []
        look = hooks.CallbackHook(after_step=lambda t: values.append(t.storage.latest()["total_loss"]))
        trainer = self.poisoned(make_trainer, stream, [look], at=1)
        with pytest.raises(FloatingPointError):
            trainer.train(0, 30)
        assert values[0] == (1.5, 0)
        assert values[1][0] != values[1][0]


class TestAccumulation:
    def test_equals_one_large_batch(self, make_trainer, stream):
        class Mean(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(4, 1, dtype=torch.float64)

            def forward(self, batch):
                x = torch.stack([s["x"] for s in batch]).double()
                out = self.linear(x)
                return {"loss_a": out.square().mean(), "loss_b": out.mean()}

        torch.manual_seed(0)
        model = Mean()
        small = make_trainer(model=copy.deepcopy(model), loader=stream(2), accumulate=3)
        large = make_trainer(model=copy.deepcopy(model), loader=stream(6))
        small.train(0, 8)
        large.train(0, 8)
        for a, b in zip(weights(small), weights(large), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        for name in ("total_loss", "loss_a", "loss_b"):
            pairs = zip(small.storage.history(name).values(), large.storage.history(name).values(), strict=True)
            assert all(a == pytest.approx(b, abs=1e-12) for a, b in pairs)

    def test_seeks_by_batches(self, make_trainer, stream):
        loader = stream()
        make_trainer(loader=loader, accumulate=3).train(5, 6)
        assert loader.seeks == [15]
        assert loader.position == 18

    def test_ranks_reduce_with_the_last_batch_only(self, make_trainer, two_losses):
        notes = []

        class Wrapper(nn.Module):
            def __init__(self, module):
                super().__init__()
                self.module = module

            def forward(self, batch):
                notes.append("forward")
                return self.module(batch)

            @contextmanager
            def no_sync(self):
                notes.append("alone")
                yield
                notes.append("end")

        make_trainer(model=Wrapper(two_losses()), accumulate=3).train(0, 1)
        assert notes == ["alone", "forward", "end"] * 2 + ["forward"]

    def test_batches_of_a_step_draw_differently(self, make_trainer):
        draws = []
        model = Fixed(lambda w, b: draws.append((torch.rand(()).item(), random.random())) or {"loss": w * 1.0})
        make_trainer(model=model, loader=[0], accumulate=3).train(0, 2)
        assert len({d for pair in draws for d in pair}) == 12


class TestPrecision:
    def test_fp16_clips_true_gradients(self, make_trainer):
        seen = []
        look = hooks.CallbackHook(after_backward=lambda t: seen.append(t.model.w.grad.item()))
        trainer = make_trainer(
            [look],
            model=Fixed(lambda w, b: {"loss": w * b}),
            loader=[4.0],
            precision=FP16("cpu", torch.amp.GradScaler("cpu", init_scale=1024.0)),
            grad_clip=ClipGradNorm(1.0),
            lr=1.0,
        )
        trainer.train(0, 1)
        assert seen == [4.0]
        assert trainer.model.w.item() == pytest.approx(0.0, abs=1e-6)
        assert trainer.storage.latest()["grad_scale"] == (1024.0, 0)
        assert trainer.storage.latest()["skipped_steps"] == (0.0, 0)

    def test_state_of_the_scaler_is_part_of_the_state(self, make_trainer):
        first = make_trainer(precision=FP16("cpu", torch.amp.GradScaler("cpu", init_scale=64.0)))
        first.train(0, 2)
        second = make_trainer(precision="fp16")
        second.load_state_dict(first.state_dict())
        assert second.precision.metrics()["grad_scale"] == 64.0

    @pytest.mark.parametrize("precision", ["tf32", "bf16"])
    def test_others_train(self, make_trainer, precision):
        trainer = make_trainer(precision=precision, grad_clip=ClipGradValue(0.1))
        before = weights(trainer)
        trainer.train(0, 3)
        assert not same(before, weights(trainer))


class TestRandomness:
    def test_a_step_draws_the_same_wherever_training_began(self, make_trainer):
        def run(start, end, noise=0):
            draws = []

            class Draw(HookBase):
                def before_step(self):
                    draws.append(("hook", self.trainer.iter, random.random(), np.random.rand(), torch.rand(()).item()))

            def output(w, b):
                draws.append(("model", random.random(), np.random.rand(), torch.rand(()).item()))
                return {"loss": w * 1.0}

            for _ in range(noise):
                random.random(), np.random.rand(), torch.rand(())
            make_trainer([Draw()], model=Fixed(output), loader=[0]).train(start, end)
            return draws

        whole = run(0, 6)
        assert run(3, 6, noise=5) == whole[6:]
        assert len({x for d in whole for x in d[2:]}) == 12 * 2 + 6

    def test_a_loader_that_draws_does_not_move_the_models_draws(self, make_trainer):
        class Drawing(list):
            draws = 0

            def __iter__(self):
                torch.rand(self.draws)
                return super().__iter__()

        def run(draws):
            seen = []
            loader = Drawing([0])
            loader.draws = draws
            model = Fixed(lambda w, b: seen.append(torch.rand(()).item()) or {"loss": w * 1.0})
            make_trainer(model=model, loader=loader).train(0, 3)
            return seen

        assert run(0) == run(3)

    def test_no_seed_leaves_the_generators_alone(self, make_trainer):
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        model = Fixed(lambda w, b: {"loss": w * torch.rand(())})
        make_trainer(model=model, loader=[0], seed=None).train(0, 1)
        assert torch.equal(torch.rand(()), expected[1])


class TestResume:
    @pytest.mark.parametrize("stop", [1, 13, 20, 25])
    def test_goes_on_bit_for_bit(self, make_trainer, stop):
        settings = {"accumulate": 2, "grad_clip": 1.0}
        whole = make_trainer(**settings)
        whole.train(0, 40)
        first = make_trainer(**settings)
        first.train(0, stop)
        state = copy.deepcopy(
            (first.model.state_dict(), {k: v.state_dict() for k, v in first.checkpointables().items()})
        )
        second = make_trainer(**settings)
        second.model.load_state_dict(state[0])
        for key, part in second.checkpointables().items():
            part.load_state_dict(state[1][key])
        second.train(stop, 40)
        assert same(weights(whole), weights(second))
        for name in ("total_loss", "loss_a", "loss_b", "grad_norm"):
            assert second.storage.history(name).values()[-20:] == whole.storage.history(name).values()[-20:]

    def test_what_differs_from_the_run_so_far_is_named(self, make_trainer, caplog):
        state = make_trainer(seed=1, accumulate=2).state_dict()
        with caplog.at_level(logging.WARNING):
            make_trainer(seed=2).load_state_dict(state)
        assert "seed=2" in caplog.text
        assert "accumulate=1" in caplog.text

    def test_state_is_plain(self, make_trainer, tmp_path):
        trainer = make_trainer([hooks.IterationTimer()], precision="fp16")
        trainer.train(0, 5)
        state = {key: part.state_dict() for key, part in trainer.checkpointables().items()}
        torch.save(state, tmp_path / "state.pth")
        torch.load(tmp_path / "state.pth", weights_only=True)


class TestNoWaiting:
    """A step reads nothing from the device; only a period's end does, once."""

    class Reads(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.items = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func._schema.name in ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal"):
                self.items += 1
            return func(*args, **(kwargs or {}))

    @pytest.fixture
    def reads(self, monkeypatch):
        counts = {}
        for name in ("item", "cpu", "tolist", "numpy", "__float__", "__int__", "__bool__"):
            real = getattr(torch.Tensor, name)

            def counting(tensor, *args, name=name, real=real, **kwargs):
                counts[name] = counts.get(name, 0) + 1
                return real(tensor, *args, **kwargs)

            monkeypatch.setattr(torch.Tensor, name, counting)
        return counts

    def trainer(self, make_trainer, tmp_path, steps):
        from hookline.engine import CommonMetricPrinter, JSONWriter, TensorboardXWriter

        class Saver:
            def save(self, *args, **kwargs):
                raise AssertionError

        class Metric(HookBase):
            def after_step(self):
                self.trainer.storage.put_scalar("accuracy", self.trainer.model.linear.weight.mean())

        writers = [CommonMetricPrinter(steps), JSONWriter(tmp_path / "metrics.json"), TensorboardXWriter(tmp_path)]
        return make_trainer(
            [
                hooks.IterationTimer(),
                hooks.LRScheduler(scheduler=lambda where: 1 - where),
                hooks.PeriodicCheckpointer(Saver(), 1000, max_iter=1000),
                hooks.EvalHook(1000, dict, eval_after_train=False),
                Metric(),
                hooks.PeriodicWriter(writers, 20),
            ],
            grad_clip=1.0,
            accumulate=2,
        )

    def test_nothing_is_read_within_a_period(self, make_trainer, tmp_path, reads):
        trainer = self.trainer(make_trainer, tmp_path, 1000)
        counted = []

        class Watch(HookBase):
            def after_step(self):
                counted.append((sum(reads.values()), mode.items))

        trainer.register_hooks([Watch()])
        with self.Reads() as mode:
            trainer.train(0, 40)
        assert counted[:19] == [(0, 0)] * 19
        assert counted[19:39] == [counted[19]] * 20
        # twice: the values of twenty steps in one read, and what a hook put behind it in the last of them
        assert reads["tolist"] == 4
        assert reads.get("item", 0) == reads.get("cpu", 0) == reads.get("__float__", 0) == 0


class TestSubclassing:
    def test_run_step_of_detectron2(self, two_losses, stream):
        import time

        class Own(SimpleTrainer):
            def run_step(self):
                assert self.model.training
                start = time.perf_counter()
                data = next(self._data_loader_iter)
                data_time = time.perf_counter() - start
                loss_dict = self.model(data)
                losses = sum(loss_dict.values())
                self.optimizer.zero_grad()
                losses.backward()
                self.after_backward()
                self._write_metrics(loss_dict, data_time)
                self.optimizer.step()

        model = two_losses()
        trainer = Own(model, stream(), torch.optim.SGD(model.parameters(), 0.1))
        trainer.train(0, 21)
        assert len(trainer.storage.history("total_loss")) == 21

    def test_a_trainer_around_another_one(self, make_trainer):
        """Detectron2's DefaultTrainer holds a SimpleTrainer and forwards the steps."""

        class Outer(TrainerBase):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def run_step(self):
                self.inner.iter = self.iter
                self.inner.run_step()

        alone, inner = make_trainer(), make_trainer()
        outer = Outer(inner)
        alone.train(0, 25)
        outer.train(0, 25)
        assert same(weights(alone), weights(inner))
        assert outer.storage.history("total_loss").values() == alone.storage.history("total_loss").values()

    def test_a_trainer_around_another_one_checks_losses(self, make_trainer):
        class Outer(TrainerBase):
            def run_step(self):
                inner.iter = self.iter
                inner.run_step()

        inner = make_trainer(model=Fixed(lambda w, b: {"loss": w * float("nan")}), loader=[0])
        outer = Outer()
        outer.register_hooks([hooks.PeriodicCheckpointer(None, 2)])
        with pytest.raises(FloatingPointError, match="iteration 0"):
            outer.train(0, 3)

    def test_the_loader_can_be_replaced(self, make_trainer, stream):
        trainer = make_trainer(loader=[])
        loader = stream()
        trainer.data_loader = loader
        assert trainer.data_loader is loader
        trainer.train(0, 1)


def test_hooks_written_for_detectron2(make_trainer):
    """Three hooks whose code is what one finds around Detectron2; only the import line differs."""

    class ValidationLoss(HookBase):
        def __init__(self, loader, period):
            self._loader = loader
            self._period = period

        def _do_loss_eval(self):
            losses = []
            with torch.no_grad():
                for inputs in self._loader:
                    metrics_dict = self.trainer.model(inputs)
                    losses.append(sum(loss.item() for loss in metrics_dict.values()))
            self.trainer.storage.put_scalar("validation_loss", np.mean(losses))
            return losses

        def after_step(self):
            next_iter = self.trainer.iter + 1
            is_final = next_iter == self.trainer.max_iter
            if is_final or (self._period > 0 and next_iter % self._period == 0):
                self._do_loss_eval()
            self.trainer.storage.put_scalars(timetest=12)

    class GradientNorms(HookBase):
        def after_backward(self):
            norms = {f"grad/{n}": p.grad.norm().item() for n, p in self.trainer.model.named_parameters()}
            self.trainer.storage.put_scalars(smoothing_hint=False, **norms)

    class StopWhenFlat(HookBase):
        def before_train(self):
            self.best = float("inf")

        def after_step(self):
            loss = self.trainer.storage.history("total_loss").latest()
            self.best = min(self.best, loss)
            for group in self.trainer.optimizer.param_groups:
                group["lr"] *= 0.99

        def after_train(self):
            self.finished = self.trainer.iter == self.trainer.max_iter

    stop = StopWhenFlat()
    loader = [[{"x": torch.ones(4)}]]
    trainer = make_trainer([ValidationLoss(loader, 3), GradientNorms(), stop])
    trainer.train(0, 10)
    assert [i for _, i in trainer.storage.history("validation_loss").values()] == [2, 5, 8, 9]
    assert len(trainer.storage.history("grad/linear.weight")) == 10
    assert stop.finished
    assert stop.best < float("inf")
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.99**10)


def test_memory_that_is_not_enough_names_the_batch_and_what_helps(make_trainer, monkeypatch, caplog):
    from hookline.engine.hooks import CallbackHook

    monkeypatch.setattr(torch.cuda, "memory_summary", lambda abbreviated: "the table of torch")

    def fail(trainer):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(torch.OutOfMemoryError):
        make_trainer([CallbackHook(after_backward=fail)]).train(0, 2)
    assert "failed at iteration 0 with OutOfMemoryError; its batch: 0000.jpg, 0001.jpg" in caplog.text
    assert "train.accumulate" in caplog.text
    assert "the table of torch" in caplog.text
