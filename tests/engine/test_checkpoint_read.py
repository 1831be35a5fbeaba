"""Safe readers: what is read, what is refused, and that nothing runs."""

import os
import pickle
import random
import types

import numpy as np
import pytest
import torch

from hookline.engine.checkpoint_errors import CheckpointError, UnsafeCheckpointError
from hookline.engine.checkpoint_read import damage_of, read_checkpoint
from hookline.engine.checkpoint_write import write_checkpoint

STATE = {"model": {"w": torch.arange(1000.0), "b": torch.ones(3)}, "iteration": 4}


class RunsCode:
    """A pickle that makes a folder when it is loaded by an ordinary unpickler."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("mmap", [False, True])
def test_reads_what_was_written(tmp_path, mmap):
    write_checkpoint(tmp_path / "a.pth", STATE)
    content = read_checkpoint(tmp_path / "a.pth", mmap=mmap)
    assert torch.equal(content["model"]["w"], STATE["model"]["w"])
    assert content["iteration"] == 4
    assert damage_of(tmp_path / "a.pth") is None


@pytest.mark.parametrize("new_format", [False, True])
@pytest.mark.parametrize(
    "content", [{"model": {"w": torch.ones(2)}}, {"state_dict": {"w": torch.ones(2)}, "epoch": 3}, {"w": torch.ones(2)}]
)
def test_other_layouts(tmp_path, content, new_format):
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    result = read_checkpoint(tmp_path / "a.pth", mmap=True)
    assert torch.equal(result["model"]["w"], torch.ones(2))
    assert result.get("epoch") == content.get("epoch")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", ["pth", "pkl"])
@pytest.mark.parametrize("writer", ["torch", "torch legacy", "pickle"])
def test_a_file_that_would_run_code_is_refused(tmp_path, writer, suffix):
    path, trace = tmp_path / f"bad.{suffix}", tmp_path / "it_ran"
    content = {"model": {"w": torch.ones(2)}, "iteration": RunsCode(trace)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"model": {"w": np.ones(2)}, "x": RunsCode(trace)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(CheckpointError, match=r"bad\.p") as error:
        read_checkpoint(path)
    assert not trace.exists()
    if writer == "torch" or (writer, suffix) in {("pickle", "pkl"), ("torch legacy", "pth")}:
        assert isinstance(error.value, UnsafeCheckpointError)
        assert "mkdir" in str(error.value)
        assert "executed" in str(error.value)
    if writer == "torch":
        with pytest.raises(UnsafeCheckpointError):
            damage_of(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<html>not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\0" * 100, "begins with zeros"),
        (b"hello, this is text", "begins with b'hello"),
        (b"PK\x03\x04 but cut off", "damaged or not a checkpoint"),
        (b"\x80\x02 half a pickle", "damaged or not a checkpoint|executed"),
    ],
)
def test_a_file_that_is_no_checkpoint(tmp_path, content, message):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(path)
    assert "model.pth" in str(error.value)
    assert damage_of(path) is not None


def test_wrong_content(tmp_path):
    for content, message in [
        ([1, 2], "it holds a list"),
        ({"a": 1, "b": 2}, "no 'model' and no 'state_dict', only: a, b"),
        ({"model": [1]}, "'model' in .* is a list"),
        ({"model": {"a": 1}}, "holds no tensors, the first key is 'a'"),
    ]:
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path / "a.pth")


def test_missing_files_name_near_ones(tmp_path):
    write_checkpoint(tmp_path / "model_final.pth", STATE)
    with pytest.raises(CheckpointError, match=r"does not exist; near names in its folder: model_final\.pth"):
        read_checkpoint(tmp_path / "model_fnal.pth")
    with pytest.raises(CheckpointError, match="there is no folder"):
        read_checkpoint(tmp_path / "none" / "a.pth")
    with pytest.raises(CheckpointError, match=r"is a folder.*model_final\.pth"):
        read_checkpoint(tmp_path)


def test_every_truncation_is_found(tmp_path):
    write_checkpoint(tmp_path / "a.pth", STATE)
    data = (tmp_path / "a.pth").read_bytes()
    for length in [*range(0, len(data), 97), len(data) - 1]:
        (tmp_path / "b.pth").write_bytes(data[:length])
        assert damage_of(tmp_path / "b.pth") is not None, length


def test_every_flipped_bit_is_found_or_harmless(tmp_path):
    write_checkpoint(tmp_path / "a.pth", STATE)
    data = (tmp_path / "a.pth").read_bytes()
    rng, found = random.Random(0), 0
    for _ in range(400):
        bit = rng.randrange(len(data) * 8)
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "b.pth").write_bytes(flipped)
        if damage_of(tmp_path / "b.pth") is not None:
            found += 1
            continue
        content = read_checkpoint(tmp_path / "b.pth")
        assert torch.equal(content["model"]["w"], STATE["model"]["w"]), f"bit {bit}"
        assert torch.equal(content["model"]["b"], STATE["model"]["b"]), f"bit {bit}"
        assert content["iteration"] == 4
    assert found > 100


def arrays() -> dict:
    return {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">f4"),
        "backwards": np.arange(4)[::-1],
        "scalar": np.float32(2.5),
    }


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("protocol", range(6))
def test_zoo_pickles_of_every_protocol_and_numpy(tmp_path, protocol, core):
    data = pickle.dumps({"model": arrays(), "__author__": "zoo", "matching_heuristics": True}, protocol=protocol)
    if protocol < 4:  # from there on names carry their length
        data = data.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", core.encode())
    (tmp_path / "zoo.pkl").write_bytes(data)
    content = read_checkpoint(tmp_path / "zoo.pkl")
    assert content["matching_heuristics"] is True
    for name, array in arrays().items():
        value = content["model"][name]
        assert value == 2.5 if name == "scalar" else np.array_equal(value.numpy(), array), name
    assert content["model"]["w"].dtype == torch.float32


def test_caffe2_blobs(tmp_path):
    blobs = {"conv1_w": np.ones(2), "conv1_w_momentum": np.ones(2)}
    (tmp_path / "c2.pkl").write_bytes(pickle.dumps({"blobs": blobs}))
    content = read_checkpoint(tmp_path / "c2.pkl")
    assert list(content["model"]) == ["conv1_w"]
    assert content["matching_heuristics"] is True


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "numpy.load", "numpy.ndarray.tofile", "torch._utils._rebuild_tensor_v2"]
)
def test_zoo_pickles_look_up_no_other_name(tmp_path, name):
    module, _, attribute = name.partition(".")
    stream = b"\x80\x04" + pickle.SHORT_BINUNICODE + bytes([len(module)]) + module.encode()
    stream += pickle.SHORT_BINUNICODE + bytes([len(attribute)]) + attribute.encode() + pickle.STACK_GLOBAL + b"."
    (tmp_path / "bad.pkl").write_bytes(stream)
    with pytest.raises(UnsafeCheckpointError, match=f"refers to {name}"):
        read_checkpoint(tmp_path / "bad.pkl")


def test_zoo_pickles_with_odd_content(tmp_path):
    path = tmp_path / "odd.pkl"
    path.write_bytes(pickle.dumps({"model": {"names": np.array(["a", "b"])}}))
    with pytest.raises(CheckpointError, match=r"model\.names in .* is an array of <U1"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps({"model": arrays()})[:-20])
    with pytest.raises(CheckpointError, match="not a readable pickle"):
        read_checkpoint(path)
    path.write_bytes(b"c_codecs\nencode\n(Vx\nVrot13\ntR.")
    with pytest.raises(UnsafeCheckpointError, match="codec 'rot13'"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(types.SimpleNamespace(a=1)))
    with pytest.raises(UnsafeCheckpointError, match=r"types\.SimpleNamespace"):
        read_checkpoint(path)
