import copy

import pytest
import torch
from torch import nn

from hookline.engine import fused
from hookline.engine.fused import fuses, keep_implementation


def parameters():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(7))]


def train(optimizer, params, steps, start=0):
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in params:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_chosen_by_device_and_class(monkeypatch):
    params = parameters()
    assert not fuses(torch.optim.AdamW, params)  # on the CPU it is not worth other digits
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))
    assert fuses(torch.optim.AdamW, params)
    assert fuses(torch.optim.SGD, params)
    assert not fuses(torch.optim.RMSprop, params)
    assert not fuses(torch.optim.Adagrad, params)  # it knows the argument, but not on every device
    assert not fuses(lambda params, fused=None: None, params)
    assert not fuses(dict, params)
    assert not fuses(torch.optim.SGD, [*params, torch.zeros(2, device="meta")])
    assert not fuses(torch.optim.SGD, [torch.zeros(2, dtype=torch.int64)])


@pytest.fixture
def sharded():
    """A model sharded by torch over the one process that there is."""
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Linear(4, 4)
        fully_shard(model)
        yield model
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad])
def test_what_is_fused_of_sharded_parameters_can_step(cls, sharded, monkeypatch):
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))
    chosen = fuses(cls, sharded.parameters())
    assert chosen is (cls in (torch.optim.Adam, torch.optim.AdamW))
    assert not fuses(cls, [*sharded.parameters(), nn.Parameter(torch.zeros(2))])
    optimizer = cls(sharded.parameters(), lr=0.1, fused=chosen or None)
    before = sharded.weight.full_tensor().detach().clone()
    sharded(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(sharded.weight.full_tensor(), before)


@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_restored_optimizer_stays_what_it_is(cls, before, after):
    settings = {"momentum": 0.9} if cls is torch.optim.SGD else {}
    params = parameters()
    first = cls(params, lr=0.1, fused=before, **settings)
    train(first, params, 3)
    state, weights = copy.deepcopy(first.state_dict()), [p.detach().clone() for p in params]

    resumed = [nn.Parameter(w) for w in weights]
    second = cls(resumed, lr=0.5, fused=after, **settings)
    keep_implementation(second)
    second.load_state_dict(state)
    assert second.param_groups[0]["fused"] is after
    assert second.param_groups[0]["lr"] == 0.1
    assert state["param_groups"][0]["fused"] is before  # what was read is not changed
    train(second, resumed, 3, start=3)
    train(first, params, 3, start=3)
    for ours, whole in zip(resumed, params, strict=True):
        if before is after:
            assert torch.equal(ours, whole)
        else:
            torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-6)
