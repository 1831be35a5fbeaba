"""Files inside of packs through the path manager."""

import os
import subprocess
import sys

import pytest
from iopath.common.file_io import PathManager as OtherPathManager

from hookline.io import PathManager, cache_folder
from hookline.io.ffrecord import (
    FFRecordError,
    FFRecordHandler,
    pack_folder,
    register_ffrecord_handler,
    unregister_ffrecord_handlers,
)
from hookline.io.ffrecord_mounts import VARIABLE, parse_mounts


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with coco.ffr, packed from a folder that is gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOOKLINE_CACHE", str(tmp_path / "cache"))
    for name, content in {
        "train/1.jpg": b"jpeg",
        "train/2.jpg": b"",
        "annotations/x.json": '{"é": 1}'.encode(),
    }.items():
        path = tmp_path / "coco" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    pack_folder("coco", "coco.ffr")
    os.rename("coco", "elsewhere")
    yield tmp_path
    unregister_ffrecord_handlers()


def read(path):
    with PathManager.open(path, "rb") as file:
        assert file.name == path
        return file.read()


def check_reading(root):
    assert read(f"{root}/train/1.jpg") == b"jpeg"
    with PathManager.open(f"{root}/annotations/x.json") as file:
        assert file.read() == '{"é": 1}'
    assert PathManager.isdir(root)
    assert PathManager.isdir(f"{root}/train/")
    assert PathManager.isfile(f"{root}/train/1.jpg")
    assert not PathManager.isfile(f"{root}/train")
    assert PathManager.exists(f"{root}/train")
    assert not PathManager.exists(f"{root}/val")
    assert sorted(PathManager.ls(f"{root}/train")) == ["1.jpg", "2.jpg"]


def test_addresses(work):
    for root in ("ffrecord://coco.ffr", f"ffrecord://{work}/coco.ffr"):
        check_reading(root)
        with pytest.raises(FileNotFoundError, match=r"train/3\.jpg"):
            read(f"{root}/train/3.jpg")
        with pytest.raises(IsADirectoryError):
            read(f"{root}/train")
        with pytest.raises(OSError, match="can only be read"):
            PathManager.open(f"{root}/train/1.jpg", "w")
    assert not PathManager.exists("ffrecord://none.ffr/train")
    with pytest.raises(FileNotFoundError, match="no such pack"):
        read("ffrecord://none.ffr/train")


def test_files_are_extracted_once(work):
    address = "ffrecord://coco.ffr/annotations/x.json"
    local = PathManager.get_local_path(address)
    assert str(cache_folder()) in local
    with open(local, "rb") as file:
        assert file.read() == '{"é": 1}'.encode()
    stamp = os.stat(local).st_mtime_ns
    assert PathManager.get_local_path(address) == local
    assert os.stat(local).st_mtime_ns == stamp
    PathManager.get_local_path(address, force=True)
    assert os.stat(local).st_mtime_ns != stamp
    assert sorted(os.listdir(PathManager.get_local_path("ffrecord://coco.ffr/train"))) == ["1.jpg", "2.jpg"]
    with pytest.raises(FileNotFoundError):
        PathManager.get_local_path("ffrecord://coco.ffr/none")


@pytest.mark.parametrize("spelling", ["datasets/coco", "./datasets/coco", "full", "ffrecord://datasets/coco"])
def test_usual_paths_read_from_the_pack(work, spelling):
    register_ffrecord_handler("coco.ffr", ffr_prefix="coco")
    check_reading(str(work / "datasets/coco") if spelling == "full" else spelling)


def test_the_whole_folder_may_be_packed(work):
    os.mkdir("all")
    os.rename("elsewhere", "all/coco")
    pack_folder("all", "all.ffr", num_parts=2)  # a folder of parts is as good
    register_ffrecord_handler("all.ffr")
    check_reading("datasets/coco")
    assert PathManager.ls("datasets") == ["coco"]


def test_what_is_not_packed_comes_from_the_disk(work):
    os.makedirs("datasets/coco/train")
    os.makedirs("datasets/coco_other")
    for name in ("coco/train/3.jpg", "coco_other/4.jpg"):
        (work / "datasets" / name).write_bytes(b"disk")
    register_ffrecord_handler("coco.ffr", "coco")
    assert read("datasets/coco/train/3.jpg") == read("datasets/coco_other/4.jpg") == b"disk"
    assert sorted(PathManager.ls("datasets/coco/train")) == ["1.jpg", "2.jpg", "3.jpg"]
    assert PathManager.get_local_path("datasets/coco/train/3.jpg") == "datasets/coco/train/3.jpg"
    assert PathManager.isdir("datasets/coco_other")
    with pytest.raises(FileNotFoundError):
        read("datasets/coco/train/none.jpg")


def test_writing_goes_to_the_disk(work):
    register_ffrecord_handler("coco.ffr", "coco")
    PathManager.mkdirs("datasets/coco/new")
    with PathManager.open("datasets/coco/new/x.txt", "w") as file:
        file.write("text")
    assert (work / "datasets/coco/new/x.txt").read_text() == "text"
    PathManager.copy("datasets/coco/train/1.jpg", "datasets/coco/new/1.jpg")
    assert (work / "datasets/coco/new/1.jpg").read_bytes() == b"jpeg"
    PathManager.mv("datasets/coco/new/1.jpg", "datasets/coco/new/2.jpg")
    PathManager.rm("datasets/coco/new/2.jpg")
    assert os.listdir("datasets/coco/new") == ["x.txt"]


def test_several_packs(work):
    (work / "b").mkdir()
    (work / "b" / "x.txt").write_bytes(b"b")
    pack_folder("b", "b.ffr")
    register_ffrecord_handler("coco.ffr")
    register_ffrecord_handler("b.ffr", "b", check_data="once")
    assert read("datasets/b/x.txt") == b"b"
    check_reading("datasets")
    assert [str(m) for m in parse_mounts(os.environ[VARIABLE])] == [
        f"datasets/b={work}/b.ffr?check=once",
        f"datasets={work}/coco.ffr",
    ] or len(parse_mounts(os.environ[VARIABLE])) == 2
    register_ffrecord_handler("coco.ffr", "b")  # instead of the one before
    check_reading("datasets/b")


def test_other_processes_know_it(work):
    register_ffrecord_handler("coco.ffr", "coco")
    code = (
        "from hookline.io.paths import PathManager; print(PathManager.open('datasets/coco/train/1.jpg', 'rb').read())"
    )
    for variable in (os.environ[VARIABLE], "datasets/coco=coco.ffr?check=off"):
        environment = {**os.environ, VARIABLE: variable}
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert result.stdout == "b'jpeg'\n"


def test_a_plain_start_loads_no_reader():
    code = "import sys, hookline.io; print('numpy' in sys.modules, 'hookline.io.ffrecord' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False False\n"


def test_forgetting(work):
    register_ffrecord_handler("coco.ffr", "coco")
    unregister_ffrecord_handlers()
    assert VARIABLE not in os.environ
    assert not PathManager.exists("datasets/coco/train/1.jpg")


def test_another_path_manager(work):
    manager = OtherPathManager()
    manager.register_handler(FFRecordHandler())
    assert manager.isfile("ffrecord://coco.ffr/train/1.jpg")
    register_ffrecord_handler("coco.ffr", "coco", path_manager=manager)
    assert manager.isfile("datasets/coco/train/1.jpg")
    assert not PathManager.isfile("datasets/coco/train/1.jpg")
    assert VARIABLE not in os.environ


def test_wrong_calls(work):
    with pytest.raises(FileNotFoundError, match=r"none\.ffr"):
        register_ffrecord_handler("none.ffr")
    (work / "bad.ffr").write_bytes(b"no record file")
    with pytest.raises(FFRecordError, match=r"bad\.ffr"):
        register_ffrecord_handler("bad.ffr")
    with pytest.raises(ValueError, match="neither name may hold"):
        register_ffrecord_handler("coco.ffr", "a:b")
    for text in ("coco.ffr", "=coco.ffr", "a=", "a=b.ffr?check=sometimes"):
        with pytest.raises(ValueError, match=r"is not FOLDER=PACK\.ffr"):
            parse_mounts(text)
    assert VARIABLE not in os.environ
