"""Files of the original library: read, refused, and written byte for byte."""

import hashlib
import json

import pytest

from hookline.io.ffrecord import FFRecordError, FileReader, FileWriter, PackedFolder, pack_folder, unpack_folder


@pytest.fixture
def samples(test_data):
    return test_data / "ffrecord"


def sha(data):
    return hashlib.sha256(data).hexdigest()


def kinds(samples, *wanted):
    entries = json.loads((samples / "manifest.json").read_text())["files"]
    found = {name: entry for name, entry in entries.items() if entry["kind"] in wanted}
    assert found
    return found


@pytest.mark.parametrize("mapped", [True, False])
def test_good_records_are_read(samples, mapped):
    for name, entry in kinds(samples, "flat", "flat-directory").items():
        with FileReader(samples / name, mapped=mapped) as reader:
            expected = [sample["sha256"] for sample in entry["samples"]]
            assert reader.n == len(reader) == len(expected)
            assert [sha(reader.read_one(i)) for i in range(reader.n)] == expected
            assert [sha(reader.read_bytes(i)) for i in range(reader.n)] == expected
            assert [sha(sample) for sample in reader.read(range(reader.n))] == expected
            reader.validate()


def test_good_folders_are_read(samples):
    for name, entry in kinds(samples, "packed-folder").items():
        with PackedFolder(samples / name) as pack:
            assert pack.num_files() == entry["num_files"]
            assert {p["path"]: sha(pack.read_one(p["path"])) for p in entry["paths"]} == {
                p["path"]: p["sha256"] for p in entry["paths"]
            }
            assert {p["path"]: pack.index(p["path"]) for p in entry["paths"]} == {
                p["path"]: p["index"] for p in entry["paths"]
            }
            if "recursive_list" in entry:
                assert pack.list(recursive=True) == entry["recursive_list"]
                assert pack.list() == entry["top_level_list"]
                assert all(pack.is_dir(folder) and pack.list(folder) == [] for folder in entry["empty_dirs"])


@pytest.mark.parametrize(
    ("name", "opens", "words"),
    [
        ("bad_sample_crc", True, r"sample 2 \(bytes 51 to 61\) is damaged: its checksum is 0x"),
        ("truncated_tail", True, r"sample 2 \(bytes 51 to 59\) is damaged.*may also have been cut"),
        ("trailing_junk", True, r"sample 2 \(bytes 51 to 65\) is damaged.*4 bytes from byte 61 on"),
        ("bad_meta_crc", False, r"the header \(bytes 4 to 48\) is damaged"),
        (
            "truncated_header",
            False,
            r"byte 4 says 3 samples, whose header ends at byte 48, but the file ends at byte 20",
        ),
        ("killed_writer", False, r"the header \(bytes 0 to 12\) is all zero: its writer was killed"),
    ],
)
def test_corrupt_ones_are_refused(samples, name, opens, words):
    file = samples / f"{name}.ffr"
    if not opens:
        with pytest.raises(FFRecordError, match=words) as caught:
            FileReader(file)
    else:
        with FileReader(file) as reader:
            assert reader.read_one(0).tobytes() == b"abc"
            with pytest.raises(FFRecordError, match=words) as caught:
                reader.read_one(2)
            with pytest.raises(FFRecordError, match=words):
                reader.read([2, 0])
            with pytest.raises(FFRecordError, match=words):
                reader.read_bytes(2)
    assert str(caught.value).startswith(str(file))


def test_without_checking_damaged_bytes_can_be_had(samples):
    with FileReader(samples / "bad_sample_crc.ffr", check_data=False) as reader:
        assert reader.read_one(2).tobytes()[-1] == 0xFE
    with FileReader(samples / "bad_meta_crc.ffr", check_data=False) as reader:
        assert reader.n == 3


def test_old_files_open_with_a_warning(samples, caplog):
    with FileReader(samples / "old_zero_meta_crc.ffr") as reader:
        assert [sample.tobytes() for sample in reader.read([0, 1, 2])] == [b"abc", b"", b"FFRecord\0\xff"]
    assert "old version" in caplog.text


def test_written_files_are_identical(samples, tmp_path):
    with FileWriter(tmp_path / "three.ffr", 3) as writer:
        for sample in (b"abc", b"", b"FFRecord\0\xff"):
            writer.write_one(sample)
    with FileWriter(tmp_path / "zero.ffr", 0):
        pass
    unpack_folder(samples / "tree.ffr", tmp_path / "tree")
    pack_folder(tmp_path / "tree", tmp_path / "tree.ffr")
    (tmp_path / "empty").mkdir()
    pack_folder(tmp_path / "empty", tmp_path / "empty_folder.ffr")
    for name in ("three.ffr", "zero.ffr", "tree.ffr", "empty_folder.ffr"):
        assert (tmp_path / name).read_bytes() == (samples / name).read_bytes(), name


def test_parts_are_identical(samples, tmp_path):
    from hookline.io.ffrecord import dump

    with FileReader(samples / "parts") as reader:
        dump(reader.read(range(4)), tmp_path / "part.ffr", 1)
    assert (tmp_path / "part.ffr").read_bytes() == (samples / "parts" / "PART_00000.ffr").read_bytes()
