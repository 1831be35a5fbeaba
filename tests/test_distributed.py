"""Collectives in one process and in three real ones."""

import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hookline import distributed as hd
from hookline import distributed_objects
from hookline.distributed_groups import disconnect, gloo_group


def in_world(rank: int, folder: str, world: int, scenario: str) -> None:
    """One rank of a world whose rendezvous is a file, so that no port is needed."""
    torch.set_num_threads(1)
    tempfile.tempdir = folder
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    try:
        globals()[scenario](rank, world)
    finally:
        hd.set_local_place(None)
        dist.destroy_process_group()


def run_world(scenario, world: int = 3) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(in_world, (folder, world, scenario.__name__), nprocs=world)


def collectives(rank: int, world: int) -> None:
    assert (hd.get_rank(), hd.get_world_size()) == (rank, world)
    assert hd.is_main_process() == (rank == 0)
    objects = [{"rank": r, "text": "x" * (10**r)} for r in range(world)]
    assert hd.all_gather(objects[rank]) == objects
    assert hd.gather(objects[rank]) == (objects if rank == 0 else [])
    assert hd.gather(objects[rank], dst=2) == (objects if rank == 2 else [])
    assert hd.broadcast(objects[rank], src=1) == objects[1]
    for setter in (0, 1, 2, None):
        assert hd.any_rank(rank == setter) == (setter is not None)
        answer = hd.any_rank_later(rank == setter)
        assert hd.all_gather(rank) == list(range(world))  # another collective between
        assert answer() == (setter is not None)
    assert len(set(hd.all_gather(hd.shared_random_seed()))) == 1
    hd.synchronize()
    hd.synchronize(timedelta(seconds=30))
    values = {"b": torch.tensor(float(rank)), "a": torch.tensor(rank, dtype=torch.int64)}
    assert hd.reduce_dict(values) == {"b": 1.0, "a": 1.0}
    assert list(hd.reduce_dict(values, average=False).items()) == [("b", 3.0), ("a", 3.0)]


def chunked(rank: int, world: int) -> None:
    normal, distributed_objects.CHUNK_BYTES = distributed_objects.CHUNK_BYTES, 1000
    objects = [torch.arange(r * 777) for r in range(world)]
    for result in (hd.all_gather(objects[rank]), hd.gather(objects[rank], dst=1) if rank == 1 else objects):
        assert all(torch.equal(a, b) for a, b in zip(result, objects, strict=True))
    if rank != 1:
        hd.gather(objects[rank], dst=1)
    assert torch.equal(hd.broadcast(objects[rank], src=2), objects[2])
    distributed_objects.CHUNK_BYTES = normal
    one_is_large = [torch.arange(r // (world - 1) * 2_000_000) for r in range(world)]  # 16 MB: padding would treble it
    assert all(torch.equal(a, b) for a, b in zip(hd.all_gather(one_is_large[rank]), one_is_large, strict=True))


def sub_group(rank: int, world: int) -> None:
    group = dist.new_group([1, 2])
    if rank > 0:
        assert hd.all_gather(rank, group) == [1, 2]
        assert hd.gather(rank, dst=2, group=group) == ([1, 2] if rank == 2 else [])
        assert hd.broadcast(rank, src=2, group=group) == 2
    hd.synchronize()


def twin(rank: int, world: int) -> None:
    """Where the default group is not gloo, objects go over a gloo group made beside it, anew for each group."""
    real, dist.get_backend = dist.get_backend, lambda group=None: "nccl"
    try:
        assert hd.all_gather(rank) == list(range(world))
        first = gloo_group(None)
        assert first is not dist.group.WORLD
        assert gloo_group(None) is first
        assert hd.any_rank(rank == 1)
        store = dist.FileStore(f"{tempfile.gettempdir()}/second-store", world)
        dist.destroy_process_group()
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
        assert hd.all_gather(rank) == list(range(world))
        assert gloo_group(None) is not first
    finally:
        dist.get_backend = real


def places(rank: int, world: int) -> None:
    with pytest.raises(RuntimeError, match=r"hookline\.engine\.launch or torchrun"):
        hd.get_local_rank()
    hd.set_local_place(rank, world)
    assert (hd.get_local_rank(), hd.get_local_size()) == (rank, world)


def missing_rank(rank: int, world: int) -> None:
    if rank == 0:
        with pytest.raises(RuntimeError, match="1, 2"):
            hd.synchronize(timedelta(seconds=1))


def everything(rank: int, world: int) -> None:
    for scenario in (collectives, chunked, sub_group, places, twin):
        scenario(rank, world)


@pytest.mark.parametrize("scenario", [everything, missing_rank])
def test_three_processes(scenario):
    run_world(scenario)


@pytest.mark.parametrize(
    ("backend", "broken", "aborts"),
    [("nccl", True, "it"), ("nccl", True, "fails"), ("nccl", False, ""), ("gloo", True, "")],
)
def test_nccl_is_aborted_where_this_rank_has_failed(monkeypatch, backend, broken, aborts):
    """It would wait for the others; whatever happens the group is gone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    hd.synchronize()
    aborted, abort = [], dist.distributed_c10d._abort_process_group

    def noted():
        aborted.append(True)
        if aborts == "fails":
            raise RuntimeError("NCCL error")
        abort()

    monkeypatch.setattr(dist, "get_backend", lambda group=None: backend)
    monkeypatch.setattr(dist.distributed_c10d, "_abort_process_group", noted)
    disconnect(broken=broken)
    assert bool(aborted) == bool(aborts)
    assert not dist.is_initialized()
    disconnect(broken=broken)  # nothing is left to do


def test_one_process_needs_no_group():
    assert (hd.get_rank(), hd.get_world_size(), hd.get_local_rank(), hd.get_local_size()) == (0, 1, 0, 1)
    assert hd.is_main_process()
    thing = object()
    assert hd.all_gather(thing)[0] is thing
    assert hd.gather(thing) == [thing]
    assert hd.broadcast(thing) is thing
    assert hd.any_rank(True) is True
    assert hd.any_rank(False) is False
    assert hd.reduce_dict({"a": torch.tensor(2.0)}) == {"a": 2.0}
    hd.synchronize()


def test_shared_seed_follows_the_global_generator():
    torch.manual_seed(7)
    first = hd.shared_random_seed()
    assert 0 <= first < 2**31
    assert hd.shared_random_seed() != first
    torch.manual_seed(7)
    assert hd.shared_random_seed() == first


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 2), (0, None)])
def test_an_impossible_place_is_refused(rank, size):
    with pytest.raises(ValueError, match="does not fit"):
        hd.set_local_place(rank, size)


def test_leaf_loads_no_room():
    import subprocess
    import sys

    code = "import sys, hookline.distributed, hookline.io; print([m for m in sys.modules if m.startswith('hookline.')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    rooms = ("engine", "data", "modeling", "evaluation", "config")
    assert not [room for room in rooms if f"hookline.{room}" in loaded]
    assert Path(hd.__file__).name == "distributed.py"
