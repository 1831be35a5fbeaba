"""Blocks that are computed again in the backward pass: the same numbers to the last bit, less memory."""

import warnings

import pytest
import torch
from torch import nn

from child_processes import run_ranks
from hookline.modeling.backbone import BasicBlock, BasicStem, BottleneckBlock, ResNet
from hookline.modeling.layers.recompute import RecomputedSequential, compiled_backward_keeps_buffers


def network(with_cp, norm="BN", freeze_at=0, block=BasicBlock):
    torch.manual_seed(0)
    more = {"bottleneck_channels": 4} if block is BottleneckBlock else {}
    stages = [
        ResNet.make_stage(block, 2, in_channels=8, out_channels=8, norm=norm, **more),
        ResNet.make_stage(block, 2, in_channels=8, out_channels=16, norm=norm, stride_per_block=[2, 1], **more),
    ]
    return ResNet(BasicStem(3, 8, norm), stages, out_features=["res2", "res3"], freeze_at=freeze_at, with_cp=with_cp)


def learn(model, autocast=False, steps=2):
    """Give gradients, state and outputs of some steps."""
    outputs, optimizer = [], torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        torch.manual_seed(step)
        x = torch.randn(2, 3, 32, 48)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            features = model(x)
        features = features if isinstance(features, dict) else {"out": features}
        outputs.append({name: value.detach().clone() for name, value in features.items()})
        optimizer.zero_grad()
        sum(value.float().square().mean() for value in features.values()).backward()
        outputs.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        optimizer.step()
    outputs.append({name: value.clone() for name, value in model.state_dict().items()})
    outputs.append({"generator": torch.get_rng_state()})
    return outputs


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize(
    ("norm", "freeze_at", "autocast"),
    [("BN", 0, False), ("BN", 0, True), ("BN", 2, False), ("FrozenBN", 1, True), ("naiveSyncBN", 0, False),
     ("SyncBN", 0, False), ("GN", 0, False), (lambda c: nn.BatchNorm2d(c, momentum=None), 0, False)],
)  # fmt: skip
def test_the_same_to_the_last_bit(norm, freeze_at, autocast, block):
    if norm == "GN":
        norm = lambda channels: nn.GroupNorm(2, channels)  # noqa: E731
    found = [learn(network(with_cp, norm, freeze_at, block), autocast) for with_cp in (True, False)]
    same(*found)
    assert len(found[0][1]) > 4


def test_draws_are_repeated():
    def make(kind):
        torch.manual_seed(0)
        return kind(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.BatchNorm2d(4)), nn.Conv2d(4, 4, 1))

    same(learn(make(RecomputedSequential)), learn(make(nn.Sequential)))


def test_less_is_kept_for_backward():
    def kept(model):
        seen = {}

        def pack(tensor):
            if not isinstance(tensor, nn.Parameter):
                seen[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model(torch.zeros(2, 8, 32, 32))
        del out
        return sum(size for size, _ in seen.values())

    assert kept(network(True).res2) < 0.4 * kept(network(False).res2)


def test_nothing_is_computed_twice_where_nothing_learns(monkeypatch):
    from hookline.modeling.layers import recompute

    monkeypatch.setattr(recompute, "checkpoint", None)
    with torch.no_grad():
        network(True)(torch.zeros(1, 3, 32, 32))
    network(True, freeze_at=3)(torch.zeros(1, 3, 32, 32))


def test_keys_are_those_without():
    assert list(network(True).state_dict()) == list(network(False).state_dict())


def test_compiled():
    if not compiled_backward_keeps_buffers():
        pytest.skip(f"torch {torch.__version__} updates running statistics twice; train.compile refuses it")
    model = network(True)
    model.compile(backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = learn(model)
    for one, other in zip(found, learn(network(False)), strict=True):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], msg=lambda text, name=name: f"{name}: {text}")


TWO_RANKS = r"""
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests.modeling.layers.test_recompute import network

rank, root = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=2)
found = []
for with_cp in (True, False):
    model = DistributedDataParallel(network(with_cp, "naiveSyncBN"))
    for step in range(2):
        torch.manual_seed(2 * step + rank)
        model.zero_grad()
        sum(value.square().mean() for value in model(torch.randn(2, 3, 32, 32)).values()).backward()
    found.append({**{n: p.grad for n, p in model.named_parameters()}, **dict(model.named_buffers())})
assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
assert len(found[0]) > 20
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_on_two_ranks(tmp_path):
    for code, output in run_ranks(TWO_RANKS, tmp_path):
        assert code == 0, output
