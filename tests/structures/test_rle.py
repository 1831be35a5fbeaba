import json

import numpy as np
import pycocotools.mask as reference
import pytest
import torch

from hookline.structures import (
    compress_rle,
    decode_rles,
    encode_masks,
    encode_polygons,
    is_column_major,
    merge_rles,
    rle,
    rle_areas,
    rle_boxes,
)


@pytest.fixture(params=["hotcoco", "pycocotools"])
def backend(request, monkeypatch):
    module = pytest.importorskip(f"{request.param}.mask" if request.param == "pycocotools" else "hotcoco")
    monkeypatch.setattr(rle, "_backend", module.mask if request.param == "hotcoco" else module)
    return request.param


@pytest.fixture
def masks():
    return torch.rand(5, 13, 17, generator=torch.Generator().manual_seed(0)) > 0.6


@pytest.mark.parametrize("column_major", [True, False])
def test_codes_equal_pycocotools_in_either_layout(backend, masks, column_major):
    if column_major:
        masks = masks.transpose(1, 2).contiguous().transpose(1, 2)
    assert is_column_major(masks) is column_major
    codes = encode_masks(masks)
    assert codes == [reference.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in masks]
    assert torch.equal(decode_rles(codes), masks)
    assert torch.equal(decode_rles(encode_masks(masks.to(torch.uint8))), masks)
    assert rle_areas(codes).tolist() == masks.sum((1, 2)).tolist()
    np.testing.assert_array_equal(rle_boxes(codes), reference.toBbox(codes))


def test_nothing_to_encode(backend):
    assert encode_masks(torch.zeros(0, 4, 4, dtype=torch.bool)) == []
    assert decode_rles([]).shape == (0, 0, 0)
    assert rle_areas([]).shape == (0,)
    assert rle_boxes([]).shape == (0, 4)


def test_every_way_of_writing_counts_is_read(backend, masks):
    code = encode_masks(masks[:1])[0]
    text = {"size": code["size"], "counts": code["counts"].decode()}
    flat = masks[0].T.flatten().int().tolist()
    runs, previous = [], 0
    for value in flat:
        if not runs or value != previous:
            if not runs and value == 1:
                runs.append(0)
            runs.append(0)
            previous = value
        runs[-1] += 1
    listed = json.loads(json.dumps({"size": [13, 17], "counts": runs}))
    for form in (code, text, listed):
        assert torch.equal(decode_rles([form])[0], masks[0])
    assert compress_rle(listed)["counts"] == code["counts"]


def test_union(backend, masks):
    assert torch.equal(decode_rles([merge_rles(encode_masks(masks[:2]))])[0], masks[0] | masks[1])


def test_instances_without_polygons_are_empty(backend):
    square = np.array([2.0, 2, 6, 2, 6, 6, 2, 6])
    codes = encode_polygons([[], [square], [square, square + 4]], 12, 14)
    assert rle_areas(codes).tolist() == [0, 16, 32 - 0]
    assert [code["size"] for code in codes] == [[12, 14]] * 3


def test_refusals():
    with pytest.raises(ValueError, match=r"bool \(N, H, W\)"):
        encode_masks(torch.zeros(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="float32"):
        encode_masks(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="one size"):
        decode_rles([{"size": [2, 2], "counts": [4]}, {"size": [2, 3], "counts": [6]}])
