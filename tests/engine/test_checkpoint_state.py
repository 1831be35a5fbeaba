"""What may be saved, and how it gets to the CPU."""

import io
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from hookline.engine.checkpoint_errors import CheckpointError
from hookline.engine.checkpoint_state import HostBuffers, plain_tree, tensor_bytes, to_host


class Numbers(int):
    pass


def test_plain_values_pass_and_containers_are_new():
    tree = {"a": [1, 2.5, "x", None, True, b"b"], "b": OrderedDict(c=(torch.ones(2), torch.float16)), 3: {}}
    copy = plain_tree(tree)
    tree["a"].append("later")
    assert copy["a"] == [1, 2.5, "x", None, True, b"b"]
    assert copy["b"]["c"][0].data_ptr() == tree["b"]["c"][0].data_ptr()
    assert type(copy["b"]) is OrderedDict
    assert copy[3] == {}


def test_parameters_become_tensors():
    param = nn.Parameter(torch.ones(3))
    saved = plain_tree({"weight": param})["weight"]
    assert type(saved) is torch.Tensor
    assert not saved.requires_grad


@pytest.mark.parametrize(
    ("value", "kind", "advice"),
    [
        (np.float64(1.0), "numpy.float64", "item"),
        (np.zeros(2), "numpy.ndarray", "as_tensor"),
        (Numbers(3), "Numbers", "int()"),
        ({1, 2}, "builtins.set", "sorted"),
        (defaultdict(int), "collections.defaultdict", "plain Python"),
        (lambda: 0, "builtins.function", "plain Python"),
        (nn.Linear(1, 1), "torch.nn.modules.linear.Linear", "plain Python"),
    ],
)
def test_anything_else_is_named_by_its_key_path(value, kind, advice):
    with pytest.raises(CheckpointError) as error:
        plain_tree({"hooks": {"best": [0, {"value": value}]}})
    assert str(error.value).startswith("hooks.best[1].value is a ")
    assert kind in str(error.value)
    assert advice in str(error.value)


def test_other_refusals():
    with pytest.raises(CheckpointError, match=r"a has the key \(1, 2\)"):
        plain_tree({"a": {(1, 2): 0}})
    with pytest.raises(CheckpointError, match=r"w is on the meta device"):
        plain_tree({"w": torch.empty(2, device="meta")})


def tensors_of_all_kinds() -> dict:
    base = torch.arange(24.0).reshape(2, 3, 4)
    return {
        "plain": base.clone(),
        "view": base[0],
        "transposed": base[1].t(),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "gaps": base[:, ::2, 1],
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 4),
        "bool": torch.tensor([True, False, True]),
        "bf16": torch.randn(5).bfloat16(),
        "complex": torch.randn(3, dtype=torch.complex64),
        "expanded": torch.ones(1).expand(7),
        "sparse": torch.eye(3).to_sparse(),
    }


def test_buffers_copy_every_kind():
    tree = plain_tree({"model": tensors_of_all_kinds(), "list": [torch.ones(3), 5]})
    copy = HostBuffers().copy(tree)
    for name, tensor in tree["model"].items():
        other = copy["model"][name]
        assert other.dtype == tensor.dtype
        assert torch.equal(other.to_dense(), tensor.to_dense()), name
        if name != "sparse" and tensor.numel():
            assert other.data_ptr() != tensor.data_ptr()
            assert other.untyped_storage().nbytes() == other.nbytes, name
    assert copy["model"]["channels_last"].is_contiguous(memory_format=torch.channels_last)
    assert copy["list"][1] == 5


def test_buffers_are_kept_and_grow():
    buffers = HostBuffers()
    weight = torch.zeros(1000)
    first = buffers.copy({"w": weight})["w"]
    weight += 1
    assert first.sum() == 0
    second = buffers.copy({"w": weight})["w"]
    assert second.data_ptr() == first.data_ptr()
    assert second.sum() == 1000
    grown = buffers.copy({"w": weight, "m": torch.ones(500)})
    assert grown["w"].sum() == 1000
    assert grown["m"].sum() == 500


@pytest.mark.parametrize("copier", [to_host, HostBuffers().copy])
def test_tied_weights_stay_tied_in_the_file(copier):
    weight = torch.randn(100, 100)
    tree = copier({"encoder": weight, "decoder": weight, "other": torch.randn(3)})
    file = io.BytesIO()
    torch.save(tree, file)
    assert len(file.getvalue()) < 1.5 * weight.nbytes
    assert torch.equal(tree["encoder"], tree["decoder"])


def test_a_view_does_not_take_its_base_along():
    base = torch.zeros(1_000_000)
    file = io.BytesIO()
    torch.save(to_host({"v": base[:10]}), file)
    assert len(file.getvalue()) < 10_000
    whole = torch.zeros(10)
    assert to_host({"w": whole})["w"].data_ptr() == whole.data_ptr()


def test_bytes_are_counted_once():
    weight = torch.zeros(100)
    assert tensor_bytes({"a": weight, "b": [weight, weight[:5]], "c": torch.zeros(3, dtype=torch.int64)}) == 424
