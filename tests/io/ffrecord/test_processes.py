"""Readers in forked and spawned processes, and in threads."""

import concurrent.futures
import functools
import multiprocessing
import threading

import pytest

from hookline.io.ffrecord import FileReader, FileWriter, PackedFolder, pack_folder

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
