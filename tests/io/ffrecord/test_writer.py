"""Writing: whole buffers, and files that are whole or absent."""

import array
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from hookline.io.ffrecord import FFRecordError, FileReader, FileWriter, dump


def test_any_buffer_is_stored_whole(tmp_path):
    numbers = np.arange(24, dtype=np.int32).reshape(4, 6)
    structured = np.zeros(3, dtype=[("a", "<i2"), ("b", "<f8")])
    buffers = {
        "bytes": (b"abc", b"abc"),
        "bytearray": (bytearray(b"abc"), b"abc"),
        "memoryview": (memoryview(b"abcdef")[::2], b"ace"),
        "array": (array.array("d", [1.5, 2.5]), np.array([1.5, 2.5]).tobytes()),
        "int32": (numbers, numbers.tobytes()),
        "strided": (numbers[:, ::2], numbers[:, ::2].tobytes()),
        "Fortran": (np.asfortranarray(numbers), numbers.tobytes()),
        "reversed": (numbers[::-1], numbers[::-1].tobytes()),
        "structured": (structured, structured.tobytes()),
        "zero dimensions": (np.array(7.0), np.array(7.0).tobytes()),
        "empty": (np.zeros((0, 3)), b""),
        "big-endian": (numbers.astype(">i4"), numbers.astype(">i4").tobytes()),
        "bool": (np.array([True, False]), b"\1\0"),
        "half": (np.ones(2, np.float16), np.ones(2, np.float16).tobytes()),
        "signed": (np.array([-1], np.int8), b"\xff"),
    }
    with FileWriter(tmp_path / "x.ffr", len(buffers)) as writer:
        for buffer, _ in buffers.values():
            writer.write_one(buffer)
    with FileReader(tmp_path / "x.ffr") as reader:
        found = dict(zip(buffers, (reader.read_bytes(i) for i in range(reader.n)), strict=True))
    assert found == {name: expected for name, (_, expected) in buffers.items()}


def test_what_has_no_memory_is_refused(tmp_path):
    with FileWriter(tmp_path / "x.ffr", 1) as writer:
        for wrong in ("text", 3, None, [1, 2]):
            with pytest.raises(TypeError, match=f"not {type(wrong).__name__}"):
                writer.write_one(wrong)
        writer.write_one(b"right")
    with FileReader(tmp_path / "x.ffr") as reader:
        assert reader.read_bytes(0) == b"right"


def test_too_few_leave_nothing(tmp_path):
    file = tmp_path / "x.ffr"
    file.write_bytes(b"older")
    writer = FileWriter(file, 2)
    writer.write_one(b"a")
    with pytest.raises(FFRecordError, match="1 of 2 samples were given"):
        writer.close()
    writer.close()
    with pytest.raises(FFRecordError, match="closed"):
        writer.write_one(b"b")
    with pytest.raises(KeyError), FileWriter(file, 0):
        raise KeyError
    assert file.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["x.ffr"]


def test_too_many_are_refused(tmp_path):
    with FileWriter(tmp_path / "x.ffr", 1) as writer:
        writer.write_one(b"a")
        with pytest.raises(FFRecordError, match="all 1 samples are written already"):
            writer.write_one(b"b")
        assert (writer.count, writer.n) == (1, 1)
    assert FileReader(tmp_path / "x.ffr").n == 1


def test_wrong_calls(tmp_path):
    with pytest.raises(ValueError, match="negative"):
        FileWriter(tmp_path / "x.ffr", -1)
    with pytest.raises(ValueError, match=r"ends in \.ffr"):
        FileWriter(tmp_path / "x.bin", 1)
    with pytest.raises(FileNotFoundError):
        FileWriter(tmp_path / "none" / "x.ffr", 1)
    assert os.listdir(tmp_path) == []


def test_dropped_writers(tmp_path):
    """A complete one is closed, as by the original; an incomplete one neither writes nor ends the process."""
    FileWriter(tmp_path / "whole.ffr", 0)
    with pytest.warns(ResourceWarning, match="dropped after 0 of 1"):
        FileWriter(tmp_path / "half.ffr", 1)
    assert os.listdir(tmp_path) == ["whole.ffr"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    writer = FileWriter(tmp_path / "x.ffr", 2)
    monkeypatch.setattr("hookline.io.ffrecord.writer.crc32", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        writer.write_one(b"a")
    with pytest.raises(FFRecordError, match="closed"):
        writer.write_one(b"a")
    assert os.listdir(tmp_path) == []


def test_a_killed_writer_leaves_no_file(tmp_path):
    code = """
        import os, signal
        from hookline.io.ffrecord import FileWriter
        writer = FileWriter("x.ffr", 2)
        writer.write_one(b"a" * 100_000)
        writer.write_one(b"b")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, check=False)
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "x.ffr").exists()
    with FileWriter(tmp_path / "x.ffr", 0):
        pass
    assert FileReader(tmp_path).fnames == [str(tmp_path / "x.ffr")]


def test_parts(tmp_path, caplog):
    samples = [bytes([i]) for i in range(10)]
    dump(samples, tmp_path / "four", 4)
    assert sorted(os.listdir(tmp_path / "four")) == [f"PART_0000{i}.ffr" for i in range(4)]
    with FileReader(tmp_path / "four") as reader:
        assert b"".join(reader.read_bytes(i) for i in range(10)) == b"".join(samples)
        assert [len(reader.get_checksums(i)) for i in range(4)] == [3, 3, 3, 1]
    dump(samples, tmp_path / "seven", 7)
    assert len(os.listdir(tmp_path / "seven")) == 5
    assert "10 samples give 5 parts, not 7" in caplog.text
    with pytest.raises(FileExistsError, match="four"):
        dump(samples, tmp_path / "four", 4)
    with pytest.raises(TypeError):
        dump([b"a", "b"], tmp_path / "bad", 2)
    assert sorted(os.listdir(tmp_path)) == ["four", "seven"]


def test_all_checksums_agree():
    import importlib
    import zlib

    from hookline.io.ffrecord import checksums

    data = bytes(range(256)) * 50
    assert checksums.crc32(data, 5) == zlib.crc32(data, 5)
    for name in checksums._FASTER:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        assert module.crc32(data, 5) == zlib.crc32(data, 5), name
