"""Packing and unpacking folders, and files by path."""

import os
import pickle
from pathlib import PurePosixPath

import pytest

from hookline.io.ffrecord import ChecksumError, FFRecordError, PackedFolder, pack_folder, unpack_folder


@pytest.fixture
def folder(tmp_path):
    top = tmp_path / "in"
    for name, content in {
        "a/x.txt": b"x",
        "a/b/y.txt": b"y",
        "a.txt": b"beside",
        "a-b.txt": b"",
        ".hidden": b"h",
    }.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    (top / "empty").mkdir()
    return top


@pytest.fixture
def pack(folder, tmp_path):
    pack_folder(folder, tmp_path / "x.ffr")
    with PackedFolder(tmp_path / "x.ffr") as pack:
        yield pack


def test_order_is_by_code_points_of_names(pack):
    assert pack.list() == [".hidden", "a", "a-b.txt", "a.txt", "empty"]
    assert pack.list(recursive=True) == [
        *(".hidden", "a", "a/b", "a/b/y.txt", "a/x.txt", "a-b.txt", "a.txt", "empty"),
    ]
    assert pack.list("a", recursive=True) == ["b", "b/y.txt", "x.txt"]
    assert pack.list("a", list_dir=False) == ["x.txt"]
    assert pack.list(list_file=False, recursive=True) == ["a", "a/b", "empty"]
    assert pack.num_files() == 5


def test_spellings_of_paths(pack):
    for path in ("a/x.txt", "./a/x.txt", "a//x.txt", "a/./x.txt", "a/x.txt/", PurePosixPath("a/x.txt")):
        for _ in range(2):  # the second time the folder is known
            assert pack.read_one(path).tobytes() == b"x"
            assert pack.exists(path)
            assert pack.is_file(path)
            assert not pack.is_dir(path)
    for path in ("", ".", "./", "a", "a/", "a/b"):
        assert pack.is_dir(path)
        assert not pack.is_file(path)
        with pytest.raises(IsADirectoryError, match="not a file but a folder"):
            pack.read_one(path)
    for path in ("/a.txt", "/a/x.txt", "a/../a.txt", "..", "a.txt/x", "a.txt/x/y", "none", "a/none", "/"):
        assert not (pack.exists(path))
        assert not (pack.is_file(path))
        assert not (pack.is_dir(path))
        with pytest.raises(FileNotFoundError, match="does not exist"):
            pack.read_one(path)
        with pytest.raises(FileNotFoundError):
            pack.list(path)
    with pytest.raises(NotADirectoryError):
        pack.list("a.txt")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'a/x\.txt'"):
        pack.read_one("a/X.txt")


def test_many_at_once(pack):
    assert [f.tobytes() for f in pack.read(["a.txt", "a/x.txt", PurePosixPath("a.txt")])] == [
        b"beside",
        b"x",
        b"beside",
    ]
    assert pack.read([]) == []
    with pytest.raises(TypeError, match="list of paths"):
        pack.read("a.txt")
    with pytest.raises(FileNotFoundError):
        pack.read(["a.txt", "none"])


def test_damage_names_file_number_and_path(pack, tmp_path):
    file = tmp_path / "x.ffr"
    at = pack.reader.get_offsets(0)[pack.index("a/x.txt")]
    with open(file, "r+b") as target:
        target.seek(at)
        target.write(b"!")
    for call in (lambda: pack.read_one("a/x.txt"), lambda: pack.read(["a.txt", "a/x.txt"])):
        with pytest.raises(ChecksumError, match=r"'a/x\.txt', in .*x\.ffr: sample 2 .* is damaged"):
            call()
    assert pack.read_one("a.txt").tobytes() == b"beside"
    with pytest.raises(ChecksumError):
        unpack_folder(file, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["in", "x.ffr"]


def test_it_travels(pack):
    with pickle.loads(pickle.dumps(pack)) as other:
        assert other.read_bytes("a.txt") == b"beside"


def test_links(folder, tmp_path, caplog):
    (folder / "link.txt").symlink_to("a.txt")
    (folder / "link").symlink_to("a")
    (folder / "nowhere").symlink_to("none")
    (folder / "itself").symlink_to("itself")
    os.mkfifo(folder / "pipe")
    report = pack_folder(folder, tmp_path / "x.ffr")
    with PackedFolder(tmp_path / "x.ffr") as pack:
        assert pack.read_bytes("link.txt") == b"beside"
        assert pack.list("link", recursive=True) == pack.list("a", recursive=True)
        assert not pack.exists("pipe")
    skipped = {os.path.basename(path): reason for path, reason in report.skipped}
    assert sorted(skipped) == ["itself", "nowhere", "pipe"]
    assert "leads nowhere" in skipped["nowhere"]
    assert "neither file nor folder" in skipped["pipe"]
    assert report.num_files == 8
    assert all(path in caplog.text for path, _ in report.skipped)


def test_link_loops_are_refused(folder, tmp_path):
    (folder / "a" / "loop").symlink_to("..")
    with pytest.raises(FFRecordError, match=r"a/loop: links back"):
        pack_folder(folder, tmp_path / "x.ffr")
    assert os.listdir(tmp_path) == ["in"]


def test_the_output_may_lie_inside(folder):
    for _ in range(2):
        report = pack_folder(folder, folder / "out.ffr")
        with PackedFolder(folder / "out.ffr") as pack:
            assert not pack.exists("out.ffr")
            assert pack.num_files() == report.num_files == 5
    assert [os.path.basename(path) for path, _ in report.skipped] == ["out.ffr"]


def test_failing_leaves_an_older_pack(folder, tmp_path, monkeypatch):
    (tmp_path / "x.ffr").write_bytes(b"older")
    monkeypatch.setattr("hookline.io.ffrecord.writer._pieces", lambda _: 1 / 0)
    for target, parts in ((tmp_path / "x.ffr", 1), (tmp_path / "parts", 3)):
        with pytest.raises(ZeroDivisionError):
            pack_folder(folder, target, num_parts=parts)
    assert sorted(os.listdir(tmp_path)) == ["in", "x.ffr"]
    assert (tmp_path / "x.ffr").read_bytes() == b"older"


def test_wrong_calls(folder, tmp_path):
    with pytest.raises(NotADirectoryError, match=r"a\.txt"):
        pack_folder(folder / "a.txt", tmp_path / "x.ffr")
    with pytest.raises(ValueError, match=r"\.ffr"):
        pack_folder(folder, tmp_path / "x.zip")
    with pytest.raises(ValueError, match="0 parts"):
        pack_folder(folder, tmp_path / "x.ffr", num_parts=0)


def test_unpacking_spares_what_is_there(pack, tmp_path):
    file = tmp_path / "x.ffr"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("full")
    for target in ("full", "link", "x.ffr"):
        with pytest.raises(FileExistsError, match="exists already"):
            unpack_folder(file, tmp_path / target)
    (tmp_path / "empty").mkdir()
    assert unpack_folder(file, tmp_path / "empty") == 5
    assert (tmp_path / "empty" / "empty").is_dir()
    assert (tmp_path / "full" / "a.txt").read_bytes() == b"mine"


def test_names_that_are_no_text(tmp_path):
    (tmp_path / "in").mkdir()
    with open(os.fsencode(tmp_path / "in") + b"/bad\xff.txt", "wb") as file:
        file.write(b"content")
    pack_folder(tmp_path / "in", tmp_path / "x.ffr")
    unpack_folder(tmp_path / "x.ffr", tmp_path / "out")
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"bad\xff.txt"]


def test_progress_and_lines(folder, tmp_path, capsys):
    pack_folder(folder, tmp_path / "x.ffr", verbose=True, progress=True)
    output = capsys.readouterr()
    assert "a-b.txt (0 bytes)" in output.out
    assert "packing" in output.err
    unpack_folder(tmp_path / "x.ffr", tmp_path / "out", progress=True)
    assert "unpacking" in capsys.readouterr().err
