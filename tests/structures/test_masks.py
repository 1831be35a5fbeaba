"""BitMasks, PolygonMasks and ROIMasks: what they share, and each beside a reference."""

import numpy as np
import pycocotools.mask as reference
import pytest
import torch

from hookline.structures import (
    BitMasks,
    Boxes,
    PolygonMasks,
    ROIMasks,
    is_column_major,
    paste,
    paste_masks_in_image,
    polygons_to_bitmask,
    rasterize_polygons_within_box,
)


def star(x, y, radius, seed, points=17):
    generator = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radii = radius * generator.uniform(0.5, 1.0, points)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1).reshape(-1)


@pytest.fixture
def polygons():
    """Three instances: of one part, of two parts, reaching over the border."""
    return [[star(50, 40, 20, 0)], [star(20, 20, 9, 1), star(80, 70, 15, 2)], [star(2, 85, 20, 3)]]


def draw(polygons, height, width):
    """The reference: pycocotools, one instance at a time."""
    codes = reference.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    return reference.decode(reference.merge(codes)).astype(bool)


def test_polygons_to_bitmask_equals_pycocotools(polygons):
    for instance in polygons:
        np.testing.assert_array_equal(polygons_to_bitmask(instance, 90, 110), draw(instance, 90, 110))
    assert not polygons_to_bitmask([], 9, 11).any()


def test_from_polygon_masks_draws_all(polygons):
    masks = BitMasks.from_polygon_masks([*polygons, []], 90, 110)
    assert masks.tensor.dtype == torch.bool
    assert masks.image_size == (90, 110)
    for mask, instance in zip(masks, polygons, strict=False):
        np.testing.assert_array_equal(mask.numpy(), draw(instance, 90, 110))
    assert masks.nonempty().tolist() == [True, True, True, False]
    assert is_column_major(masks.tensor)
    assert len(BitMasks.from_polygon_masks(PolygonMasks([]), 9, 11)) == 0


def test_areas_and_boxes_agree(polygons):
    vector, pixels = PolygonMasks(polygons[:2]), BitMasks.from_polygon_masks(polygons[:2], 90, 110)
    torch.testing.assert_close(vector.area(), pixels.area().float(), rtol=0.05, atol=5)
    torch.testing.assert_close(vector.get_bounding_boxes().tensor, pixels.get_bounding_boxes().tensor, rtol=0, atol=1.0)


def test_area_of_a_known_shape():
    square = [0, 0, 4, 0, 4, 4, 0, 4]
    assert PolygonMasks([[square], [square, [0, 0, 1, 0, 0, 2]], []]).area().tolist() == [16, 17, 0]


def test_bounding_boxes_of_pixels():
    masks = torch.zeros(3, 6, 8)
    masks[0, 2:4, 1:7] = 1
    masks[1, 5, 7] = 1
    boxes = BitMasks(masks).get_bounding_boxes()
    assert boxes.tensor.tolist() == [[1, 2, 7, 4], [7, 5, 8, 6], [0, 0, 0, 0]]
    assert BitMasks(masks).area().tolist() == [12, 1, 0]
    assert len(BitMasks(torch.zeros(0, 6, 8)).get_bounding_boxes()) == 0


def test_crop_and_resize_of_polygons_is_that_of_each_alone(polygons):
    masks = PolygonMasks(polygons)
    boxes = torch.tensor([[35.3, 21.0, 70.1, 55.5], [0, 0, 100, 90], [5, 5, 5, 5]])
    result = masks.crop_and_resize(boxes, 28)
    assert result.dtype == torch.bool
    assert result.shape == (3, 28, 28)
    for mask, instance, box in zip(result, polygons, boxes.double().numpy(), strict=True):
        size = np.maximum(box[2:] - box[:2], 0.1)
        moved = [((p.reshape(-1, 2) - box[:2]) * 28 / size).reshape(-1) for p in instance]
        np.testing.assert_array_equal(mask.numpy(), draw(moved, 28, 28))
        torch.testing.assert_close(rasterize_polygons_within_box(instance, box, 28), mask)


def test_crop_and_resize_of_pixels_is_near_that_of_polygons(polygons):
    boxes = torch.tensor([[32.0, 22.0, 68.0, 60.0], [10.0, 10.0, 96.0, 86.0], [0.0, 65.0, 21.0, 90.0]])
    vector = PolygonMasks(polygons).crop_and_resize(boxes, 28)
    pixels = BitMasks.from_polygon_masks(polygons, 90, 110).crop_and_resize(boxes, 28)
    assert pixels.dtype == torch.bool
    assert (vector != pixels).float().mean() < 0.06


def test_crop_of_the_whole_mask_at_its_own_size_is_the_mask():
    masks = torch.rand(4, 28, 28) > 0.5
    boxes = torch.tensor([[0.0, 0.0, 28.0, 28.0]]).expand(4, 4)
    assert torch.equal(BitMasks(masks).crop_and_resize(boxes, 28), masks)


def test_many_large_masks_are_cropped_in_parts(monkeypatch):
    masks = BitMasks(torch.rand(7, 20, 20) > 0.5)
    boxes = torch.tensor([[2.0, 3.0, 17.0, 15.0]]).expand(7, 4)
    whole = masks.crop_and_resize(boxes, 7)
    monkeypatch.setattr("hookline.structures.bit_masks._PIXELS_AT_ONCE", 900)
    assert torch.equal(masks.crop_and_resize(boxes, 7), whole)


@pytest.mark.parametrize(
    "make",
    [lambda n: PolygonMasks([[star(5, 5, 4, i)] for i in range(n)]), lambda n: BitMasks(torch.rand(n, 9, 9) > 0.5)],
)
def test_both_kinds_index_alike(make):
    masks = make(4)
    assert len(masks[2]) == 1
    assert len(masks[1:]) == 3
    assert len(masks[[3, 0]]) == 2
    assert len(masks[torch.tensor([3, 0, 1])]) == 3
    assert len(masks[torch.tensor([True, False, False, True])]) == 2
    assert len(masks[torch.zeros(0, dtype=torch.int64)]) == 0
    assert len(type(masks).cat([masks, masks[:1]])) == 5
    assert masks.crop_and_resize(torch.zeros(4, 4), 14).shape == (4, 14, 14)
    assert masks[:0].crop_and_resize(torch.zeros(0, 4), 14).shape == (0, 14, 14)
    assert masks.to("cpu").device.type == "cpu"
    with pytest.raises(IndexError):
        masks[torch.tensor([True, False])]
    with pytest.raises(ValueError, match="one box per"):
        masks.crop_and_resize(torch.zeros(3, 4), 14)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([[[0, 0, 1, 1]]], "instance 0: a polygon is a flat sequence"),
        ([[[0, 0, 1, 1, 2, 2]], [[0, 0, 1, 1, 2, 2, 3]]], "instance 1: .*even number"),
        ([[[[0, 0], [1, 1], [2, 2]]]], "flat"),
    ],
)
def test_wrong_polygons_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        PolygonMasks(wrong)


def test_wrong_containers_are_refused():
    with pytest.raises(TypeError, match="list of polygons per instance"):
        PolygonMasks("abc")
    with pytest.raises(TypeError, match="instance 0: expected a list of polygons, got int"):
        PolygonMasks([3])
    with pytest.raises(ValueError, match=r"shape \(N, H, W\)"):
        BitMasks(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="one image size"):
        BitMasks.cat([BitMasks(torch.zeros(1, 3, 3)), BitMasks(torch.zeros(1, 3, 4))])


def sampled(masks, boxes, height, width):
    """The reference: every pixel of the image sampled from the mask."""
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    x = (x - boxes[:, 0:1]) / (boxes[:, 2:3] - boxes[:, 0:1]) * 2 - 1
    y = (y - boxes[:, 1:2]) / (boxes[:, 3:4] - boxes[:, 1:2]) * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=3)
    return torch.nn.functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


@pytest.mark.parametrize("way", ["_paste_windows", "_paste_whole"])
def test_pasting_equals_sampling_every_pixel(way, monkeypatch):
    monkeypatch.setattr(paste, "_paste_windows", getattr(paste, way))  # the GPU's way runs on a CPU too
    monkeypatch.setattr(paste, "_PIXELS_AT_ONCE", 20_000)
    monkeypatch.setattr(paste, "_PRODUCTS_AT_ONCE", 5_000)
    torch.manual_seed(0)
    masks, low = torch.rand(12, 28, 28), torch.rand(12, 2) * torch.tensor([80.0, 60.0]) - 10
    boxes = torch.cat([low, low + torch.rand(12, 2) * 60 + 1], dim=1)
    values = sampled(masks, boxes, 70, 90)
    for threshold in (0.5, 0.2):
        pasted = paste_masks_in_image(masks, boxes, (70, 90), threshold)
        differs = pasted != (values >= threshold)
        assert (values[differs] - threshold).abs().max() < 1e-5 if differs.any() else True
        assert is_column_major(pasted)
    soft = paste_masks_in_image(masks, boxes, (70, 90), threshold=-1)
    assert soft.dtype == torch.uint8
    assert (soft.float() - values * 255).abs().max() <= 1.01


@pytest.mark.parametrize("way", ["_paste_windows", "_paste_whole"])
def test_pasting_a_full_mask_fills_the_box(way, monkeypatch):
    monkeypatch.setattr(paste, "_paste_windows", getattr(paste, way))
    boxes = torch.tensor([[3.0, 2.0, 9.0, 7.0], [5.0, 5.0, 5.0, 5.0], [-30.0, -30.0, -10.0, -10.0]])
    pasted = ROIMasks(torch.ones(3, 28, 28)).to_bitmasks(boxes, 10, 12)
    assert pasted.get_bounding_boxes().tensor[0].tolist() == [3, 2, 9, 7]
    assert pasted.area().tolist() == [30, 0, 0]
    again = BitMasks.from_roi_masks(ROIMasks(torch.ones(3, 28, 28)), boxes, 10, 12)
    assert torch.equal(again.tensor, pasted.tensor)


def test_pasting_nothing():
    assert paste_masks_in_image(torch.zeros(0, 28, 28), torch.zeros(0, 4), (10, 12)).shape == (0, 10, 12)


@pytest.mark.parametrize("way", ["_paste_windows", "_paste_whole"])
def test_pasting_ignores_mixed_precision(way, monkeypatch):
    monkeypatch.setattr(paste, "_paste_windows", getattr(paste, way))
    masks, boxes = torch.rand(2, 28, 28), torch.tensor([[3.3, 2.1, 49.0, 57.0], [0.0, 0.0, 64.0, 64.0]])
    plain = paste_masks_in_image(masks, boxes, (64, 64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(paste_masks_in_image(masks, boxes, (64, 64)), plain)


def test_roi_masks_are_square():
    with pytest.raises(ValueError, match=r"\(N, S, S\)"):
        ROIMasks(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"boxes \(N, 4\)"):
        paste_masks_in_image(torch.zeros(2, 3, 3), torch.zeros(3, 4), (5, 5))
    masks = ROIMasks(torch.zeros(2, 3, 3))
    assert len(masks[0]) == 1
    assert len(masks.to("cpu")) == 2
    assert [one.shape for one in masks] == [(3, 3)] * 2


def test_boxes_of_polygons_hold_their_points(polygons):
    boxes = PolygonMasks([*polygons, []]).get_bounding_boxes()
    assert isinstance(boxes, Boxes)
    assert boxes.tensor[3].tolist() == [0, 0, 0, 0]
    points = np.concatenate(polygons[1]).reshape(-1, 2)
    np.testing.assert_allclose(boxes.tensor[1], [*points.min(0), *points.max(0)], rtol=1e-6)
