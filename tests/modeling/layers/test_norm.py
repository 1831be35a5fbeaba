import multiprocessing
import tempfile

import pytest
import torch
import torch.distributed as dist
from torch import nn

from hookline.modeling.layers import Conv2d, FrozenBatchNorm2d, LayerNorm, get_norm


def _random_batch_norm(channels, cls=nn.BatchNorm2d):
    norm = cls(channels)
    for name, value in norm.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(channels) + (0.5 if name != "running_mean" else -0.5))
    return norm


def test_frozen_batch_norm_equals_batch_norm_in_evaluation():
    norm = _random_batch_norm(5).eval()
    frozen = FrozenBatchNorm2d(5)
    frozen.load_state_dict(norm.state_dict())  # the counter of batch norm is accepted and dropped
    assert sorted(frozen.state_dict()) == ["bias", "running_mean", "running_var", "weight"]
    assert not list(frozen.parameters())
    x = torch.randn(2, 5, 4, 3)
    torch.testing.assert_close(frozen(x), norm(x))


def test_a_fresh_frozen_batch_norm_is_the_identity():
    x = torch.randn(2, 5, 4, 3)
    torch.testing.assert_close(FrozenBatchNorm2d(5)(x), x, rtol=1e-6, atol=1e-6)


def test_frozen_batch_norm_loads_an_affine_part_alone():
    frozen = FrozenBatchNorm2d(3)
    frozen.running_var.fill_(7)
    frozen.load_state_dict({"weight": torch.full((3,), 2.0), "bias": torch.ones(3)})
    x = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(frozen(x), 2 * x + 1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_folding_gives_the_output_and_gradient_of_two_passes(bias, groups, memory_format):
    frozen = FrozenBatchNorm2d.from_batch_norm(_random_batch_norm(6))
    folded = Conv2d(4, 6, 3, bias=bias, groups=groups, norm=frozen, activation=torch.relu).to(
        memory_format=memory_format
    )
    plain = nn.Conv2d(4, 6, 3, bias=bias, groups=groups)
    plain.load_state_dict({k: v for k, v in folded.state_dict().items() if not k.startswith("norm")})
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=memory_format)
    got, want = folded(x), frozen(plain(x)).relu()
    torch.testing.assert_close(got, want)
    for out in (got, want):
        out.square().sum().backward()
    torch.testing.assert_close(folded.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)
    if bias:
        torch.testing.assert_close(folded.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_conversion_freezes_every_batch_norm_at_its_state(cls):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), _random_batch_norm(4, cls), nn.Sequential(_random_batch_norm(4, cls)))
    x = torch.randn(2, 3, 5, 5)
    want = net.eval()(x)
    converted = FrozenBatchNorm2d.convert_frozen_batchnorm(net)
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in converted.modules()) == 2
    torch.testing.assert_close(converted.train()(x), want)


@pytest.mark.parametrize(("name", "cls"), [
    ("BN", nn.BatchNorm2d), ("SyncBN", nn.SyncBatchNorm), ("nnSyncBN", nn.SyncBatchNorm), ("GN", nn.GroupNorm),
    ("naiveSyncBN", nn.BatchNorm2d), ("FrozenBN", FrozenBatchNorm2d), ("LN", LayerNorm),
    (nn.BatchNorm2d, nn.BatchNorm2d),
])  # fmt: skip
def test_get_norm_builds_what_its_name_says(name, cls):
    norm = get_norm(name, 32)
    assert isinstance(norm, cls)
    assert norm(torch.randn(2, 32, 3, 3)).shape == (2, 32, 3, 3)


def test_get_norm_without_a_name_gives_none():
    assert get_norm("", 3) is None
    assert get_norm(None, 3) is None


def test_an_unknown_norm_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"norm='FrozenBn' is not known.*Did you mean 'FrozenBN'"):
        get_norm("FrozenBn", 3)


def test_layer_norm_equals_a_loop_over_cells():
    norm = LayerNorm(4)
    norm.weight.data, norm.bias.data = torch.rand(4), torch.rand(4)
    x = torch.randn(2, 4, 3, 2)
    got = norm(x)
    for b in range(2):
        for i in range(3):
            for j in range(2):
                cell = x[b, :, i, j]
                want = (cell - cell.mean()) / (cell.var(unbiased=False) + 1e-6).sqrt() * norm.weight + norm.bias
                torch.testing.assert_close(got[b, :, i, j], want)


def _sync_worker(rank, name, store, x, queue):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    norm = get_norm(name, 3)
    part = (x[:1] if rank == 0 else x[1:]).requires_grad_()
    out = norm(part)
    (out * torch.arange(out.numel()).view_as(out)).sum().backward()
    queue.put((rank, out.tolist(), part.grad.tolist(), norm.running_mean.tolist(), norm.running_var.tolist()))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SyncBN", "naiveSyncBN"])
def test_synchronised_batch_norm_of_two_ranks_equals_batch_norm_of_the_whole_batch(name):
    x = torch.randn(4, 3, 2, 2)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [(rank, name, f"{folder}/store", x, queue) for rank in (0, 1)]
        workers = [context.Process(target=_sync_worker, args=args) for args in arguments]
        for worker in workers:
            worker.start()
        results = sorted(queue.get(timeout=120) for _ in workers)
        for worker in workers:
            worker.join()
    queue.close()
    queue.join_thread()
    whole = x.clone().requires_grad_()
    norm = nn.BatchNorm2d(3)
    out = norm(whole)
    weight = torch.cat([torch.arange(12.0).view(1, 3, 2, 2), torch.arange(36.0).view(3, 3, 2, 2)])
    (out * weight).sum().backward()
    torch.testing.assert_close(torch.tensor(results[0][1] + results[1][1]), out, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.tensor(results[0][2] + results[1][2]), whole.grad, rtol=1e-3, atol=1e-3)
    for _, _, _, mean, var in results:
        torch.testing.assert_close(torch.tensor(mean), norm.running_mean)
        torch.testing.assert_close(torch.tensor(var), norm.running_var)
