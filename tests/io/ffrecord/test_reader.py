"""Reading by number: borders, files cut while open, closing, and where the time goes."""

import os
import pickle
import threading

import numpy as np
import pytest

from hookline.io.ffrecord import ChecksumError, FFRecordError, FileReader, FileWriter

SAMPLES = [bytes([i]) * length for i, length in enumerate((0, 1, 7, 4095, 4096, 4097, 100_000, 300_000))]


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "x.ffr", SAMPLES)


def write(path, samples):
    with FileWriter(path, len(samples)) as writer:
        for sample in samples:
            writer.write_one(sample)
    return path


@pytest.mark.parametrize("mapped", [None, True, False])
@pytest.mark.parametrize("check_data", [True, "once", False])
def test_samples_own_their_memory(file, mapped, check_data):
    with FileReader(file, check_data, mapped=mapped) as reader:
        one, many = reader.read_one(6), reader.read([7, 0, 6, 6])
    for array in (one, *many):  # also after closing
        assert array.dtype == np.uint8
        assert array.ndim == 1
        assert array.flags.owndata
        assert array.flags.writeable
    assert [array.tobytes() for array in many] == [SAMPLES[7], SAMPLES[0], SAMPLES[6], SAMPLES[6]]
    many[2][:] = 0
    assert many[3].tobytes() == one.tobytes() == SAMPLES[6]


def test_numbers_outside(file):
    with FileReader(file) as reader:
        for index in (-1, 8, 1 << 70, -(1 << 70)):
            with pytest.raises(IndexError, match=r"x\.ffr: there is no sample .*expected 0 <= index < 8"):
                reader.read_one(index)
            with pytest.raises(IndexError):
                reader.read([0, index])
        with pytest.raises(TypeError):
            reader.read_one(1.5)
        assert reader.read([]) == []
        assert reader.read_one(np.int64(1)).tobytes() == SAMPLES[1]
        assert len(reader.read(np.arange(8))) == 8
        with pytest.raises(IndexError):
            reader.get_offsets(1)


def test_tables(file):
    with FileReader(file) as reader:
        offsets = reader.get_offsets(0)
        assert offsets.dtype == np.int64
        assert np.diff(offsets).tolist() == [len(s) for s in SAMPLES] == [reader.length(i) for i in range(8)]
        assert offsets[-1] == os.path.getsize(file)
        assert reader.get_checksums(0).dtype == np.uint32


def test_parts_are_one_space(tmp_path):
    write(tmp_path / "b.ffr", SAMPLES[:3])
    write(tmp_path / "empty.ffr", [])
    write(tmp_path / "a.ffr", SAMPLES[3:])
    (tmp_path / "other.txt").touch()
    for files in (tmp_path, [tmp_path / "a.ffr", str(tmp_path / "b.ffr"), tmp_path / "empty.ffr"]):
        with FileReader(files) as reader:
            assert reader.n == 8
            assert [s.tobytes() for s in reader.read([7, 0, 4, 5])] == [SAMPLES[i] for i in (2, 3, 7, 0)]
            assert reader.locate(6) == (str(tmp_path / "b.ffr"), 1)


def test_names_that_cannot_be(tmp_path):
    (tmp_path / "x.bin").touch()
    (tmp_path / "folder.ffr").mkdir()
    os.mkfifo(tmp_path / "pipe.ffr")
    with pytest.raises(ValueError, match=r"ends in \.ffr; did you mean '.*x\.bin\.ffr'"):
        FileReader(tmp_path / "x.bin")
    with pytest.raises(FileNotFoundError, match=r"none\.ffr"):
        FileReader(tmp_path / "none.ffr")
    with pytest.raises(FFRecordError, match="holds no"):
        FileReader(tmp_path / "folder.ffr")
    with pytest.raises(FFRecordError, match="no regular file"):
        FileReader(tmp_path / "pipe.ffr")
    with pytest.raises(ValueError, match="empty"):
        FileReader([])
    with pytest.raises(TypeError, match="int"):
        FileReader(3)
    with pytest.raises(ValueError, match="check_data='sometimes'"):
        FileReader([tmp_path / "x.ffr"], "sometimes")


@pytest.mark.parametrize("mapped", [True, False])
def test_a_file_cut_while_open(file, mapped):
    with FileReader(file, mapped=mapped) as reader:
        os.truncate(file, 1000)
        with pytest.raises(FFRecordError, match=r"sample 7 begins at byte \d+.* now ends at byte 1000"):
            reader.read_one(7)
        with pytest.raises(FFRecordError):
            reader.read([6, 5])
        with pytest.raises(FFRecordError):
            reader.read_bytes(6)


def test_damage_is_checked_always_once_or_never(file):
    readers = {check: FileReader(file, check) for check in (True, "once", False)}
    for reader in readers.values():
        reader.read_one(2)
    at = readers[True].get_offsets(0)[2]
    with open(file, "r+b") as target:
        target.seek(at)
        target.write(b"!")
    with pytest.raises(ChecksumError, match=r"sample 2 .* is damaged"):
        readers[True].read_one(2)
    assert readers["once"].read_one(2)[0] == ord("!")
    assert readers[False].read_one(2)[0] == ord("!")
    with FileReader(file, "once") as fresh, pytest.raises(ChecksumError):
        fresh.read_one(2)


def test_damage_of_the_header_is_noticed_later(file):
    with FileReader(file) as reader:
        with open(file, "r+b") as target:
            target.seek(13)
            target.write(b"!!")
        with pytest.raises(ChecksumError, match="header"):
            reader.validate()


def test_errors_survive_pickling_and_are_what_callers_catch():
    error = pickle.loads(pickle.dumps(ChecksumError("x.ffr: sample 1")))
    assert isinstance(error, (OSError, RuntimeError))
    assert str(error) == "x.ffr: sample 1"


def test_closing(file):
    reader = FileReader(file)
    reader.close()
    reader.close()
    for call in (lambda: reader.read_one(0), lambda: reader.read([0]), reader.validate, lambda: reader.get_offsets(0)):
        with pytest.raises(FFRecordError, match="closed"):
            call()


def test_no_descriptor_stays_open(file):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with FileReader(file) as reader:
            reader.read_one(6)
        with pytest.raises(IndexError):
            FileReader(file).read_one(9)
    assert len(os.listdir("/proc/self/fd")) == before


def test_closing_while_others_read(file):
    """A descriptor that is closed under a reading thread might be another file's by the time it reads."""
    errors, wrong = [], []
    reader = FileReader(file, mapped=False)
    go = threading.Event()

    def read():
        go.wait()
        try:
            while True:
                if reader.read_one(7).tobytes() != SAMPLES[7]:
                    wrong.append(1)
        except FFRecordError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    go.set()
    for _ in range(20):
        reader.read_one(6)
    reader.close()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(errors) == 4
    assert all("closed" in error for error in errors)


def test_forty_readers_at_once(file):
    readers = [FileReader(file) for _ in range(40)]
    for reader in readers:
        assert [len(s) for s in reader.read(range(8))] == [len(s) for s in SAMPLES]


def test_offsets_out_of_order_or_out_of_the_file(tmp_path):
    import struct
    import zlib

    def header(n, *offsets):
        tables = struct.pack("<q", n) + b"\0\0\0\0" * len(offsets) + struct.pack(f"<{len(offsets)}q", *offsets)
        return struct.pack("<I", zlib.crc32(tables)) + tables

    for content, words in {
        header(2, 36, 35) + b"xx": "byte 28: sample 1 begins at 35, before sample 0",
        header(2, 36, 99) + b"xx": "byte 28: sample 1 begins at 99, but the file ends at byte 38",
        header(2, 12, 36) + b"xx": "byte 20: sample 0 begins at 12, in the header",
        header(2, -(1 << 63), 36): "byte 20: sample 0 begins at -9223372036854775808",
        header(2, 36, -1): "byte 28: sample 1 begins at -1, before",
        header(0) + b"x": "there are no samples, but 1 bytes from byte 12 on",
        header(-1): "byte 4 says -1 samples",
        header(1 << 60): "byte 4 says 1152921504606846976 samples",
        b"\0" * 12: "all zero",
        b"\0" * 5: "ends at byte 5",
        b"": "ends at byte 0",
    }.items():
        (tmp_path / "x.ffr").write_bytes(content)
        for check_data in (True, False):
            with pytest.raises(FFRecordError, match=words):
                FileReader(tmp_path / "x.ffr", check_data)


def test_a_gap_before_the_first_sample_is_accepted(tmp_path):
    """The format allows it, for data that begins at a page."""
    import struct
    import zlib

    tables = struct.pack("<qIq", 1, zlib.crc32(b"abc"), 4096)
    (tmp_path / "x.ffr").write_bytes((struct.pack("<I", zlib.crc32(tables)) + tables).ljust(4096, b"\0") + b"abc")
    with FileReader(tmp_path / "x.ffr") as reader:
        assert reader.read_one(0).tobytes() == b"abc"


def test_the_lock_is_released_while_reading(tmp_path):
    """Another thread goes on while a large sample is read and checked."""
    file = write(tmp_path / "x.ffr", [np.zeros(64 << 20, dtype=np.uint8)])
    for mapped in (True, False):
        with FileReader(file, mapped=mapped) as reader:
            ticks, done = [], threading.Event()

            def tick(done=done, ticks=ticks):
                while not done.wait(0.0005):
                    ticks.append(1)

            thread = threading.Thread(target=tick)
            thread.start()
            for _ in range(3):
                reader.read_one(0)
            done.set()
            thread.join()
            assert len(ticks) > 10
