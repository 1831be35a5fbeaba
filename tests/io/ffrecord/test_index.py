"""The index of a packed folder runs nothing, takes no memory, and leads nowhere else."""

import os
import pickle
import time
from collections import OrderedDict

import pytest

from hookline.io.ffrecord import FFRecordError, FileWriter, PackedFolder, unpack_folder
from hookline.io.ffrecord.index import MAGIC, decode_index, encode_index

CLASS = b"\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94"


def packed(folder, index):
    file = folder / "x.ffr"
    with FileWriter(file, 2) as writer:
        writer.write_one(b"content")
        writer.write_one(MAGIC + index)
    return file


class Command:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(2, 6))
def test_hostile_calls_do_not_run(tmp_path, protocol):
    mark = tmp_path / "mark"
    for call in ((os.system, (f"touch {mark}",)), (eval, (f"open({str(mark)!r}, 'w')",)), (OrderedDict, ([("a", 0)],))):
        for index in (Command(*call), OrderedDict(a=Command(*call))):
            with pytest.raises(FFRecordError, match="index"):
                PackedFolder(packed(tmp_path, pickle.dumps(index, protocol)))
    assert not mark.exists()


def test_a_class_of_another_name_is_refused(tmp_path):
    index = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93."
    with pytest.raises(FFRecordError, match=r"it asks for os\.system"):
        PackedFolder(packed(tmp_path, index))


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(b"\x80\x04K\0r\xff\xff\xff\xff.", id="memory of a memo"),
        pytest.param(b"\x80\x04X\xff\xff\xff\xff.", id="long text"),
        pytest.param(b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f.", id="long frame"),
        pytest.param(b"\x80\x04)" + b"2\x86" * 60 + b".", id="doubled tuples"),
        pytest.param(b"\x80\x04" + CLASS + b")R\x94(\x8c\x01ah\x03u.", id="folder in itself"),
        pytest.param(b"\x80\x04" + CLASS + b")R\x94}\x8c\x05itemsK\0sb.", id="attributes"),
        pytest.param(b"\x80\x04" + CLASS + b")R(K\0K\0u.", id="name that is a number"),
        pytest.param(b"\x80\x04" + CLASS + b")R\x8c\x01a\x8c\x01bs.", id="number that is a name"),
        pytest.param(b"\x80\x04K\0.", id="no folder"),
        pytest.param(b"\x80\x04" + CLASS + b")R.junk", id="behind the end"),
        pytest.param(b"\x80\x04" + CLASS + b")R", id="no end"),
        pytest.param(b"\x80\x04uuuu.", id="nothing to fill"),
        pytest.param(b"\x80\x04h\x07.", id="not remembered"),
        pytest.param(b"(lp0\n.", id="text protocol"),
        pytest.param(b"", id="empty"),
    ],
)
def test_damaged_and_hostile_pickles(tmp_path, index):
    with pytest.raises(FFRecordError, match=r"x\.ffr: "):
        PackedFolder(packed(tmp_path, index))


def test_shared_folders_do_not_multiply(tmp_path):
    """Sixty folders, each twice in the next one, are 2^60 paths."""
    tree = OrderedDict()
    for _ in range(60):
        tree = OrderedDict(a=tree, b=tree)
    start = time.monotonic()
    with pytest.raises(FFRecordError, match="twice"):
        PackedFolder(packed(tmp_path, pickle.dumps(tree, 4)))
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("name", ["..", ".", "", "/etc", "../up", "a/b", "a\0b"])
def test_names_that_lead_elsewhere(tmp_path, name):
    for tree in (OrderedDict({name: 0}), OrderedDict(a=OrderedDict({name: OrderedDict(b=0)}))):
        file = packed(tmp_path, pickle.dumps(tree, 4))
        (tmp_path / "in").mkdir(exist_ok=True)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(FFRecordError, match="no name of a file"):
            unpack_folder(file, tmp_path / "in" / "out")
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("number", [-1, 1, 1 << 36])
def test_numbers_that_are_no_samples(tmp_path, number):
    with pytest.raises(FFRecordError, match=r"not in 0\.\.0"):
        PackedFolder(packed(tmp_path, pickle.dumps(OrderedDict(a=number), 4)))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_python_s_protocol_is_read(protocol):
    tree = OrderedDict((f"{'n' * (i % 400)}{i}", i) for i in range(3000))
    tree["sub"] = OrderedDict((name, OrderedDict(x=i)) for i, name in enumerate("abcé图😀" * 1))
    tree["bad\udcff"] = 7
    found = decode_index(MAGIC + pickle.dumps(tree, protocol), 3000, "x")
    assert found == tree
    assert list(found) == list(tree)
    if protocol == 4:
        assert encode_index(found) == MAGIC + pickle.dumps(tree, 4)


def test_an_ordinary_file_is_no_folder(tmp_path):
    with FileWriter(tmp_path / "x.ffr", 1) as writer:
        writer.write_one(b"record")
    with pytest.raises(FFRecordError, match=r"x\.ffr: is not a packed folder"):
        PackedFolder(tmp_path / "x.ffr")
    with FileWriter(tmp_path / "y.ffr", 0):
        pass
    with pytest.raises(FFRecordError, match=r"y\.ffr: is not a packed folder"):
        PackedFolder(tmp_path / "y.ffr")
