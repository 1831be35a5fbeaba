"""Readers in forked and spawned processes, in threads, and in torch's loader."""

import concurrent.futures
import functools
import multiprocessing
import threading

import pytest
from torch.utils.data import DataLoader

from hookline.io.ffrecord import FileReader, FileWriter, PackedFolder, pack_folder
from hookline.io.ffrecord.dataset import FFRecordDataset

NUM = 60


def content(i):
    return bytes([i]) * (i * 400)


@pytest.fixture
def file(tmp_path):
    with FileWriter(tmp_path / "x.ffr", NUM) as writer:
        for i in range(NUM):
            writer.write_one(content(i))
    return tmp_path / "x.ffr"


def all_right(reader):
    order = [*range(NUM), *reversed(range(NUM))]
    return all(a.tobytes() == content(i) for a, i in zip(reader.read(order), order, strict=True))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("used_before", [False, True])
def test_other_processes(file, method, used_before):
    context = multiprocessing.get_context(method)
    with FileReader(file) as reader, context.Pool(2) as pool:
        if used_before:
            assert all_right(reader)
        assert pool.map(all_right, [reader, reader]) == [True, True]
        pool.close()
        pool.join()


@pytest.mark.parametrize("mapped", [True, False])
def test_inherited_by_fork_after_use(file, mapped):
    """The reader itself, not a copy: all processes and threads read through one descriptor at the same time."""
    context = multiprocessing.get_context("fork")
    with FileReader(file, mapped=mapped) as reader:
        assert all_right(reader)
        processes = [context.Process(target=_check_often, args=(reader,)) for _ in range(3)]
        for process in processes:
            process.start()
        _check_often(reader)
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


def _check_often(reader):
    for _ in range(10):
        assert all_right(reader)


@pytest.mark.parametrize("check_data", [True, "once"])
def test_threads_share_a_reader(file, check_data):
    with FileReader(file, check_data) as reader, concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(all_right, [reader] * 40))


def test_forty_readers_at_once(file):
    barrier, results = threading.Barrier(40), []

    def read():
        with FileReader(file) as reader:
            barrier.wait()
            results.append(all_right(reader))

    threads = [threading.Thread(target=read) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 40


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "spawn")])
def test_the_loader_reads_batches(file, workers, method):
    dataset = FFRecordDataset(file, process=bytes)
    dataset.reader.read([3, 4])
    loader = DataLoader(
        dataset, batch_size=8, num_workers=workers, multiprocessing_context=method, collate_fn=_as_it_is
    )
    assert [sample for batch in loader for sample in batch] == [content(i) for i in range(NUM)]


def _as_it_is(batch):
    return batch


def test_a_batch_is_one_call(file, monkeypatch):
    dataset, calls = FFRecordDataset(file), []
    read = dataset.reader.read
    monkeypatch.setattr(dataset.reader, "read", lambda indices: calls.append(list(indices)) or read(indices))
    assert len(list(DataLoader(dataset, batch_size=20, collate_fn=_as_it_is))) == 3
    assert calls == [list(range(20)), list(range(20, 40)), list(range(40, 60))]
    assert dataset[5].tobytes() == content(5)
    assert len(dataset) == NUM


def test_a_subclass_sees_whole_batches(file):
    class Lengths(FFRecordDataset):
        def process(self, indices, data):
            return [(index, len(record)) for index, record in zip(indices, data, strict=True)]

    dataset = Lengths(file)
    assert dataset[3] == (3, 1200)
    assert dataset.__getitems__([4, 2]) == [(4, 1600), (2, 800)]


def test_packed_folders_travel(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_bytes(b"a")
    pack_folder(tmp_path / "in", tmp_path / "x.ffr")
    with PackedFolder(tmp_path / "x.ffr") as pack:
        for method in ("fork", "spawn"):
            with multiprocessing.get_context(method).Pool(1) as pool:
                assert pool.map(functools.partial(PackedFolder.read_bytes, pack), ["a.txt"]) == [b"a"]
                pool.close()
                pool.join()
