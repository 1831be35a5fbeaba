"""Statistics of batch norm over many batches: right, without a trace elsewhere, the same after a resume."""

import logging
import random

import numpy as np
import pytest
import torch
from torch import nn

from child_processes import run_ranks
from hookline.engine import Checkpointer
from hookline.engine.hooks import CallbackHook, EMAHook, PreciseBN
from hookline.engine.hooks.precise_bn import get_bn_modules, update_bn_stats
from hookline.engine.train_loop import StopTraining


class Norms(nn.Module):
    """A norm that is met twice in a pass, one of images, one in evaluation mode; draws from all generators."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.images, self.still = nn.BatchNorm2d(1), nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.train()

    def train(self, mode=True):
        super().train(mode)
        self.still.eval()
        return self

    def forward(self, batch):
        self.calls += 1
        x = torch.stack([sample["x"] for sample in batch])
        x = self.images(x.view(-1, 1, 2, 2)).view(-1, 4) + 0 * (random.random() + np.random.rand())
        x = nn.functional.dropout(self.still(self.linear(x)), 0.1)
        return {"loss": self.norm(self.norm(x) * 2 + 1).square().mean() + x.mean()}


def inputs(module, model, batches):
    """All values that reached a module, (N, C)."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].transpose(0, 1).flatten(1)))
    for batch in batches:
        model(batch)
    handle.remove()
    return torch.cat(seen, 1).double()


@pytest.mark.parametrize("compiled", [False, True])
def test_the_true_mean_and_variance(stream, compiled):
    model = Norms()
    batches = [[stream.sample(4 * b + i) for i in range(4 if b else 2)] for b in range(5)]
    if compiled:
        model.norm.compile(backend="eager")
        model(batches[0])  # compiled before the hooks came
    state, generator = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    buffers = update_bn_stats(model, batches, 5)
    assert torch.equal(torch.get_rng_state(), state)
    names = {name for name, value in model.named_buffers() if any(value is buffer for buffer in buffers)}
    assert names == {f"{norm}.running_{what}" for norm in ("norm", "images") for what in ("mean", "var")}
    for name, value in model.state_dict().items():  # nothing else changed
        assert torch.equal(value, generator[name]) == (name not in names), name
    measured = {name: value.clone() for name, value in model.named_buffers()}
    for norm in ("images", "norm"):
        torch.set_rng_state(state)
        values = inputs(getattr(model, norm), model, batches)
        torch.testing.assert_close(measured[f"{norm}.running_mean"].double(), values.mean(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(measured[f"{norm}.running_var"].double(), values.var(1), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # fvcore uses it
def test_as_fvcores_where_batches_are_of_one_size(stream):
    from fvcore.nn.precise_bn import update_bn_stats as reference

    batches = [[stream.sample(64 * b + i) for i in range(64)] for b in range(4)]
    ours, theirs = (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    tensors = [torch.stack([sample["x"] for sample in batch]) for batch in batches]
    update_bn_stats(ours, tensors, 4)
    reference(theirs, tensors, 4, progress=None)
    torch.testing.assert_close(ours[1].running_mean, theirs[1].running_mean)
    torch.testing.assert_close(ours[1].running_var, theirs[1].running_var, rtol=0.02, atol=0)  # its batches' mean


def test_training_is_not_changed_by_a_bit(make_trainer, stream):
    def run(*hooks_of):
        model, loader = Norms(), stream()
        losses = []
        note = CallbackHook(after_step=lambda t: losses.append(t.storage.latest()["total_loss"][0]))
        trainer = make_trainer([*(make(model, loader) for make in hooks_of), note], model=model, loader=loader,
                               gather_metric_period=1)  # fmt: skip
        trainer.train(0, 9)
        return model.state_dict(), {n: p.grad for n, p in model.named_parameters()}, losses, trainer

    bare, grads, losses, _ = run()
    state, grads_too, losses_too, trainer = run(lambda model, loader: PreciseBN(2, model, loader, 3))
    assert losses == losses_too
    assert all(torch.equal(grad, grads_too[name]) for name, grad in grads.items())
    different = {name for name, value in bare.items() if not torch.equal(value, state[name])}
    assert different == {f"{norm}.running_{what}" for norm in ("norm", "images") for what in ("mean", "var")}
    assert trainer.data_loader.position == 9  # its own position was not touched


def test_when_and_on_which_batches(make_trainer, stream):
    model, seen = Norms(), []
    hook = PreciseBN(4, model, stream(), 2)
    trainer = make_trainer([hook], model=model, accumulate=2)
    model.register_forward_pre_hook(lambda _, args: seen.append((trainer.iter, args[0][0]["file_name"])))
    trainer.train(0, 10)
    own = [entry for i in range(10) for entry in ((i, f"{4 * i:04d}.jpg"), (i, f"{4 * i + 2:04d}.jpg"))]
    extra = [entry for entry in seen if entry not in own]
    # behind iteration 3: the batches of iteration 4, and so on; at the end those that would come next
    assert [seen.count(entry) for entry in own] == [1] * 20
    assert extra == [(i, f"{4 * (i + 1) + 2 * k:04d}.jpg") for i in (3, 7, 9) for k in (0, 1)]


def test_a_run_that_ends_early_measures_too(make_trainer, stream):
    def stop(trainer):
        if trainer.iter == 3:
            raise StopTraining("enough")

    model = Norms()
    hook = PreciseBN(0, model, stream(), 2)
    trainer = make_trainer([hook, CallbackHook(before_step=stop)], model=model)
    trainer.train(0, 10)
    early = {name: value.clone() for name, value in model.state_dict().items()}
    model = Norms()
    make_trainer([PreciseBN(0, model, stream(), 2)], model=model).train(0, 3)
    assert all(torch.equal(value, early[name]) for name, value in model.state_dict().items())


def test_a_resumed_run_has_the_same_statistics_bit_for_bit(make_trainer, stream, tmp_path):
    def run(start, end):
        model = Norms()
        ema = EMAHook(0.8)
        trainer = make_trainer([ema, PreciseBN(3, model, stream(), 2, averages=[ema])], model=model)
        checkpointer = Checkpointer(model, tmp_path, trainer=trainer)
        trainer.train(checkpointer.resume() + 1 if start else 0, end)
        return model.state_dict(), ema.state_dict()["averages"], checkpointer

    whole, averages, _ = run(0, 11)
    *_, checkpointer = run(0, 6)
    checkpointer.save("model_0000005", iteration=5)
    resumed, averages_too, _ = run(6, 11)
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
    assert all(torch.equal(value, averages[name]) for name, value in averages_too.items())


def test_averages_get_statistics_of_their_own(make_trainer, stream):
    model, ema = Norms(), EMAHook(0.9, warmup=False)
    make_trainer([ema, PreciseBN(0, model, stream(), 3, averages=[ema])], model=model).train(0, 5)
    other = Norms()
    other.load_state_dict({**other.state_dict(), **ema.state_dict()["averages"]})

    def batches():
        for index in range(3):
            torch.manual_seed(draws[index])
            yield [stream.sample(2 * (5 + index) + i) for i in range(2)]

    from hookline.engine.randomness import mix_seed  # the draws of the hook: (seed, iteration, batch)

    draws = [(mix_seed(mix_seed(0, 0) ^ 4) + index * 0x9E3779B97F4A7C15) % 2**64 for index in range(3)]
    update_bn_stats(other, batches(), 3)
    with ema.averaged():
        for name in ("norm.running_mean", "norm.running_var", "images.running_var"):
            assert torch.equal(model.get_buffer(name), other.get_buffer(name))
    assert not torch.equal(model.norm.running_var, other.norm.running_var)


def test_without_batch_norm_there_is_nothing_to_do(make_trainer, two_losses, caplog):
    model = two_losses()
    hook = PreciseBN(1, model, [], 2)  # the loader is never asked
    with caplog.at_level(logging.INFO):
        make_trainer([hook], model=model).train(0, 3)
    assert [r.message for r in caplog.records if "PreciseBN" in r.message] == [
        "PreciseBN: no batch norm in training mode"
    ]
    frozen = Norms().eval()
    assert get_bn_modules(frozen) == []
    with pytest.raises(ValueError, match="num_iter=0"):
        PreciseBN(1, model, [], 0)


TWO_RANKS = r"""
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from hookline.engine import SimpleTrainer, hooks

rank, root, world = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=world)
torch.manual_seed(0)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, batch):
        return {"loss": self.linear(self.norm(torch.stack(batch))).square().mean()}


samples = [torch.randn(4, generator=torch.Generator().manual_seed(i)) * (i + 1) for i in range(12)]
batches = [samples[6 * i:6 * i + 6] for i in range(2)]
model = Model()
ema = hooks.EMAHook(0.5)
wrapped = DistributedDataParallel(model) if world > 1 else model
loader = [batch[rank::world] for batch in batches]
trainer = SimpleTrainer(wrapped, loader, torch.optim.SGD(model.parameters(), lr=0.1))
trainer.register_hooks([ema, hooks.PreciseBN(0, wrapped, loader, 2, averages=[ema])])
trainer.train(0, 3)
torch.save({"model": model.state_dict(), "averages": ema.state_dict()["averages"]}, f"{root}/{world}-{rank}.pth")
if world > 1:
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_measure_together(tmp_path):
    for code, output in run_ranks(TWO_RANKS, tmp_path, "2") + run_ranks(TWO_RANKS, tmp_path, "1", ranks=1):
        assert code == 0, output
    first, second, alone = (torch.load(tmp_path / f"{name}.pth") for name in ("2-0", "2-1", "1-0"))
    for part in ("model", "averages"):
        assert first[part].keys() == second[part].keys() == alone[part].keys()  # no prefix of a wrapper
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())
    for name in ("norm.running_mean", "norm.running_var"):  # the input norm: all values count once, whoever has them
        torch.testing.assert_close(first["model"][name], alone["model"][name])
        torch.testing.assert_close(first["averages"][name], alone["averages"][name])
