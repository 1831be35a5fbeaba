"""The reader of the metadata of sharded checkpoints, as different Pythons write it."""

import io
import pickle
from enum import Enum
from http import HTTPStatus
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from hookline.engine import UnsafeCheckpointError
from hookline.engine.checkpoint_shards import read_parts

# torch says so although `no_dist` asks for it
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")


class Python3110Pickler(pickle.Pickler):
    """Pickles the members of an Enum as Python 3.11.0 to 3.11.3 do, and later ones do not."""

    def reducer_override(self, value):
        return (getattr, (type(value), value.name)) if isinstance(value, Enum) else NotImplemented


class Attribute:
    """Is a `getattr` in a pickle."""

    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return getattr, self.args


@pytest.fixture
def folder(tmp_path):
    dcp.save(
        {"a": torch.arange(6.0)},
        storage_writer=dcp.FileSystemWriter(tmp_path / "at7.dcp"),
        planner=dcp.DefaultSavePlanner(flatten_state_dict=False),
        no_dist=True,
    )
    return tmp_path / "at7.dcp"


def test_members_of_enums_may_be_pickled_by_getattr(folder):
    written = io.BytesIO()
    Python3110Pickler(written).dump(pickle.loads((folder / ".metadata").read_bytes()))
    assert b"getattr" in written.getvalue()
    (folder / ".metadata").write_bytes(written.getvalue())
    tensor = torch.zeros(6)
    read_parts(folder, {"a": tensor})
    assert tensor.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (_MEM_FORMAT_ENCODING, "mro"),
        (_MEM_FORMAT_ENCODING, "_member_map_"),
        (_MEM_FORMAT_ENCODING, "__init__"),
        (_MEM_FORMAT_ENCODING, 3),
        (Attribute(_MEM_FORMAT_ENCODING, "TORCH_CHANNELS_LAST"), "value"),
        (torch.Size, "numel"),
        (Path("a"), "unlink"),
        ("{}", "format"),
    ],
)
def test_other_attributes_are_refused(folder, target, name):
    (folder / ".metadata").write_bytes(pickle.dumps(Attribute(target, name)))
    with pytest.raises(
        UnsafeCheckpointError, match=r"metadata refers to builtins\.getattr\(.*nothing of it was executed"
    ):
        read_parts(folder, {})


def test_members_of_other_enums_are_refused(folder):
    (folder / ".metadata").write_bytes(pickle.dumps(Attribute(HTTPStatus, "OK")))
    with pytest.raises(UnsafeCheckpointError, match=r"metadata refers to http\.HTTPStatus"):
        read_parts(folder, {})
