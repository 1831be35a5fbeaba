"""Annotations beside naive ways; refusals by id."""

import copy

import numpy as np
import pytest
import torch

import hookline.data.transforms as T
from hookline.data import annotations as module
from hookline.data import detection_utils
from hookline.data.errors import BadSampleError
from hookline.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks

SIZE = (60, 80)
SQUARE = [5.0, 5, 30, 5, 30, 25, 5, 25]


def annotation(number=1, **changes):
    base = {
        "id": number,
        "bbox": [5.0, 5.0, 25.0, 20.0],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 3,
        "segmentation": [list(SQUARE)],
        "keypoints": [10, 10, 2, 20, 20, 1],
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


TRANSFORMS = T.TransformList([T.ResizeTransform(60, 80, 30, 80), T.HFlipTransform(80), T.CropTransform(10, 0, 60, 20)])


def test_all_at_once_equals_one_by_one():
    given = [annotation(1), annotation(2, bbox=[50, 30, 20, 20], segmentation=[[50.0, 30, 70, 30, 70, 50], SQUARE])]
    before = copy.deepcopy(given)
    flip = np.array([1, 0])
    for mask_format in ("polygon", "bitmask"):
        result = module.make_instances(
            given, TRANSFORMS, SIZE, (20, 60), mask_format=mask_format, use_keypoint=True, keypoint_hflip_indices=flip
        )
        moved = [
            detection_utils.transform_instance_annotations(a, TRANSFORMS, (20, 60), keypoint_hflip_indices=flip)
            for a in given
        ]
        expected = detection_utils.annotations_to_instances(moved, (20, 60), mask_format)
        assert torch.equal(result.gt_boxes.tensor, expected.gt_boxes.tensor)
        assert torch.equal(result.gt_classes, expected.gt_classes)
        assert torch.equal(result.gt_keypoints.tensor, expected.gt_keypoints.tensor)
        assert torch.equal(result.gt_masks.get_bounding_boxes().tensor, expected.gt_masks.get_bounding_boxes().tensor)
        assert isinstance(result.gt_masks, BitMasks if mask_format == "bitmask" else PolygonMasks)
    assert given == before


def test_known_numbers():
    moved = detection_utils.transform_instance_annotations(
        annotation(bbox=[5, 5, 1000, 20]), list(TRANSFORMS), (20, 60), keypoint_hflip_indices=np.array([1, 0])
    )
    assert moved["bbox"].tolist() == [0, 2.5, 60, 12.5]
    assert moved["bbox_mode"] == BoxMode.XYXY_ABS
    assert sorted(moved["segmentation"][0].reshape(-1, 2).tolist()) == [[40, 2.5], [40, 12.5], [60, 2.5], [60, 12.5]]
    assert moved["keypoints"].tolist() == [[50, 10, 1], [60, 5, 2]]
    assert moved["category_id"] == 3


def test_no_annotations_have_all_fields():
    result = module.make_instances(
        [], TRANSFORMS, SIZE, (20, 60), mask_format="polygon", use_keypoint=True, keypoint_hflip_indices=np.arange(17)
    )
    assert len(result) == 0
    assert result.gt_boxes.tensor.shape == (0, 4)
    assert result.gt_classes.dtype == torch.int64
    assert result.gt_keypoints.tensor.shape == (0, 17, 3)
    assert len(module.filter_empty_instances(result)) == 0
    drawn = module.make_instances([], TRANSFORMS, SIZE, (20, 60), mask_format="bitmask")
    assert len(module.filter_empty_instances(drawn)) == 0
    assert not detection_utils.annotations_to_instances([], SIZE).has("gt_masks")


def test_boxes_of_several_modes():
    boxes = module.annotation_boxes(
        [annotation(), annotation(2, bbox=(1, 2, 3, 4), bbox_mode=BoxMode.XYXY_ABS)],
    )
    assert boxes.tolist() == [[5, 5, 30, 25], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bbox": [5, 5, 0, 20]}, r"\[5, 5, 0, 20\].*width 0 and height 20"),
        ({"bbox": [5, 5, 10, -2]}, "height -2"),
        ({"bbox": [5, 5, float("nan"), 3]}, "width nan"),
        ({"bbox": [80, 5, 10, 10]}, r"box.*outside the image of \(60, 80\)"),
        ({"bbox": [5, -10, 10, 10]}, "box.*outside the image"),
        ({"bbox": None}, "no bbox"),
        ({"bbox_mode": None}, "no bbox_mode"),
        ({"bbox": [1, 2, 3]}, "cannot be read"),
        ({"bbox": ["a", 2, 3, 4]}, "cannot be read"),
        ({"bbox_mode": BoxMode.XYXY_REL}, "cannot be read"),
        ({"segmentation": [[80.0, 5, 90, 5, 90, 25]]}, r"polygons, from \[80.0, 5.0\].*outside"),
        ({"segmentation": [[1.0, 1, 5, 5, 9, 9]]}, "no area"),
        ({"segmentation": [[1.0, 1, 5, 5]]}, "2 points"),
        ({"segmentation": []}, "no polygon"),
        ({"segmentation": {"size": list(SIZE), "counts": [60 * 80]}}, "no pixel"),
        ({"segmentation": None}, "no segmentation"),
        ({"keypoints": None}, "no keypoints"),
    ],
)
def test_unusable_annotations_are_refused_by_id(changes, words):
    with pytest.raises(BadSampleError, match=f"^annotation 42: .*{words}") as caught:
        module.make_instances(
            [annotation(1), annotation(42, **changes)],
            T.NoOpTransform(),
            SIZE,
            SIZE,
            mask_format="polygon",
            use_keypoint=True,
        )
    assert caught.value.annotation_id == 42


def test_sticking_out_and_partly_degenerate_are_fine():
    given = [
        annotation(1, bbox=[-5, -5, 20, 20], segmentation=[[-5.0, -5, 15, -5, 15, 15, -5, 15]]),
        annotation(2, segmentation=[SQUARE, [1.0, 1, 5, 5, 9, 9]]),
    ]
    result = module.make_instances(given, T.NoOpTransform(), SIZE, SIZE, mask_format="polygon")
    assert result.gt_boxes.tensor[0].tolist() == [0, 0, 15, 15]
    # what was not asked for is not looked at
    assert len(module.make_instances([annotation(segmentation=[])], T.NoOpTransform(), SIZE, SIZE)) == 1


@pytest.mark.parametrize("bitmaps", [False, True])
def test_filter(bitmaps):
    masks = PolygonMasks([[np.array(SQUARE)], [np.array(SQUARE)], []])
    instances = Instances(SIZE, gt_boxes=Boxes([[0, 0, 5, 5], [3, 0, 3, 9], [0, 0, 5, 5]]))
    instances.gt_masks = BitMasks.from_polygon_masks(masks, *SIZE) if bitmaps else masks
    rest, kept = module.filter_empty_instances(instances, return_mask=True)
    assert kept.tolist() == [True, False, False]
    assert len(rest) == 1
    assert len(module.filter_empty_instances(instances, by_mask=False)) == 2
    assert len(module.filter_empty_instances(instances, by_box=False)) == 2
    assert len(module.filter_empty_instances(instances, box_threshold=6)) == 0
    with pytest.raises(ValueError, match="nothing to filter by"):
        module.filter_empty_instances(instances, by_box=False, by_mask=False)
    if bitmaps:
        instances.gt_masks = BitMasks(instances.gt_masks.tensor.contiguous())
        assert module.filter_empty_instances(instances, return_mask=True)[1].tolist() == [True, False, False]


def test_annotations_that_a_crop_emptied_can_be_made_instances_and_filtered():
    crop = T.CropTransform(40, 30, 20, 20)
    moved = [detection_utils.transform_instance_annotations(annotation(keypoints=None), crop, (20, 20))]
    for mask_format in ("polygon", "bitmask"):
        instances = detection_utils.annotations_to_instances(moved, (20, 20), mask_format)
        assert len(detection_utils.filter_empty_instances(instances)) == 0


def test_image_size():
    image = np.zeros((60, 80, 3), np.uint8)
    record = {"file_name": "a.jpg"}
    module.check_image_size(record, image)
    assert (record["height"], record["width"]) == SIZE
    with pytest.raises(BadSampleError, match=r"a\.jpg: the image has \(60, 80\).*\(80, 60\).*EXIF"):
        module.check_image_size({"file_name": "a.jpg", "height": 80, "width": 60}, image)


@pytest.mark.parametrize("box", [[5, 5, 25, 20], [0, 0, 2, 2], [70, 50, 10, 10], [0, 0, 80, 60]])
@pytest.mark.parametrize("crop", [(20, 30), (100, 100), (1, 1)])
def test_drawn_windows_contain_the_centre(box, crop):
    np.random.seed(0)
    center = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
    places = set()
    for _ in range(60):
        window = module.gen_crop_transform_with_instance(crop, SIZE, annotation(bbox=box))
        low = np.array([window.x0, window.y0])
        high = np.array([window.x0 + window.w, window.y0 + window.h])
        assert (low <= center).all()
        assert (center <= high).all()
        assert (low >= 0).all()
        assert (high <= SIZE[::-1]).all()
        places.add(tuple(low))
    assert len(places) > 1 or crop != (20, 30) or box[0] == 0 or box[0] == 70
    with pytest.raises(BadSampleError, match="centre"):
        module.gen_crop_transform_with_instance(crop, SIZE, annotation(bbox=[100, 5, 10, 10]))
