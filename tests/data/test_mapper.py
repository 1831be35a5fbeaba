"""Records to samples."""

import copy
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

import hookline.data.transforms as T
from hookline.data.errors import BadSampleError
from hookline.data.mapper import DatasetMapper
from hookline.structures import BitMasks, BoxMode, PolygonMasks

SQUARE = [5.0, 5, 30, 5, 30, 25, 5, 25]


@pytest.fixture
def record(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[:, :, 0] // 32).save(tmp_path / "a_labels.png")
    return {
        "file_name": str(tmp_path / "a.png"),
        "height": 60,
        "width": 80,
        "image_id": 9,
        "sem_seg_file_name": str(tmp_path / "a_labels.png"),
        "annotations": [
            {
                "id": 5,
                "bbox": [5, 5, 25, 20],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 2,
                "segmentation": [SQUARE],
                "iscrowd": 0,
                "keypoints": [10, 10, 2],
            },
            {
                "id": 6,
                "bbox": [0, 0, 80, 60],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 2,
                "segmentation": {"size": [60, 80], "counts": [0, 60 * 80]},
                "iscrowd": 1,
            },
        ],
    }


def test_a_training_sample(record):
    before = copy.deepcopy(record)
    mapper = DatasetMapper(
        True,
        augmentations=[T.Resize((120, 80)), T.HFlipTransform(80)],
        image_format="BGR",
        use_instance_mask=True,
        use_keypoint=True,
        keypoint_hflip_indices=[0],
    )
    sample = mapper(record)
    assert record == before
    assert set(sample) == {"file_name", "height", "width", "image_id", "image", "sem_seg", "instances"}
    assert (sample["height"], sample["width"], sample["image_id"]) == (60, 80, 9)
    pixels = np.array(Image.open(record["file_name"]))
    resize = T.ResizeTransform(60, 80, 120, 80)
    expected = resize.apply_image(pixels)[:, ::-1, ::-1].transpose(2, 0, 1)
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].is_contiguous()
    assert np.array_equal(sample["image"].numpy(), expected)
    labels = resize.apply_segmentation(pixels[:, :, 0] // 32)[:, ::-1]
    assert sample["sem_seg"].dtype == torch.int64
    assert np.array_equal(sample["sem_seg"].numpy(), labels)
    instances = sample["instances"]
    assert instances.image_size == (120, 80)
    assert instances.gt_boxes.tensor.tolist() == [[50, 10, 75, 50]]
    assert instances.gt_classes.tolist() == [2]
    assert isinstance(instances.gt_masks, PolygonMasks)
    assert instances.gt_masks.get_bounding_boxes().tensor.tolist() == [[50, 10, 75, 50]]
    assert instances.gt_keypoints.tensor.tolist() == [[[70, 20, 2]]]


def test_an_evaluation_sample_has_no_targets_and_checks_none(record):
    record["annotations"][0]["bbox"] = [0, 0, 0, 0]
    sample = DatasetMapper(False, augmentations=[], image_format="L")(record)
    assert sample["image"].shape == (1, 60, 80)
    assert not {"instances", "sem_seg", "annotations"} & set(sample)


def test_a_record_without_annotations_has_no_instances(record):
    del record["annotations"], record["height"], record["width"]
    sample = DatasetMapper(True, augmentations=[T.RandomFlip()], image_format="RGB")(record)
    assert "instances" not in sample
    assert (sample["height"], sample["width"]) == (60, 80)


def test_codes_make_bitmaps(record):
    record["annotations"][1]["iscrowd"] = 0
    masks = {"image_format": "RGB", "use_instance_mask": True}
    sample = DatasetMapper(True, augmentations=[T.CropTransform(4, 4, 30, 30)], **masks)(record)
    assert isinstance(sample["instances"].gt_masks, BitMasks)
    assert sample["instances"].gt_masks.tensor[1].all()
    del record["annotations"][1]
    drawn = DatasetMapper(True, augmentations=[], instance_mask_format="bitmask", **masks)(record)
    assert drawn["instances"].gt_masks.area().tolist() == [25 * 20]


def test_what_a_crop_leaves_empty_is_dropped_and_boxes_can_be_recomputed(record):
    record["annotations"][1].update(iscrowd=0, bbox=[0, 30, 80, 20], segmentation=[[0.0, 30, 80, 30, 80, 50, 0, 50]])
    options = {"image_format": "RGB", "use_instance_mask": True}
    crop = [T.CropTransform(40, 0, 40, 60)]
    sample = DatasetMapper(True, augmentations=crop, **options)(record)
    assert sample["instances"].gt_boxes.tensor.tolist() == [[0, 30, 40, 50]]
    turn = [T.RotationTransform(60, 80, 30)]
    loose = DatasetMapper(True, augmentations=turn, **options)(record)["instances"].gt_boxes
    tight = DatasetMapper(True, augmentations=turn, recompute_boxes=True, **options)(record)["instances"].gt_boxes
    assert (tight.area() <= loose.area() + 1e-3).all()
    nothing = DatasetMapper(True, augmentations=[T.CropTransform(70, 50, 5, 5)], **options)(record)["instances"]
    assert len(nothing) == 0


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_deterministic_given_the_global_seeds(record, mask_format):
    mapper = DatasetMapper(
        True,
        augmentations=[
            T.ResizeShortestEdge((40, 90)),
            T.RandomRotation((-20, 20)),
            T.RandomCrop("relative_range", (0.6, 0.6)),
            T.RandomFlip(),
            T.RandomContrast(0.5, 1.5),
            T.RandomLighting(0.5),
        ],
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format=mask_format,
    )
    samples = []
    for _ in range(2):
        random.seed(7), np.random.seed(7), torch.manual_seed(7)
        samples.append([mapper(record) for _ in range(3)])
    for one, other in zip(*samples, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["sem_seg"], other["sem_seg"])
        assert torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)
    assert samples[0][0]["image"].shape != samples[0][1]["image"].shape


def test_errors_name_file_and_annotation(record):
    mapper = DatasetMapper(True, augmentations=[], image_format="RGB", use_instance_mask=True)
    record["annotations"][0]["bbox"] = [90, 5, 25, 20]
    with pytest.raises(BadSampleError, match=r"a\.png: annotation 5: .*outside") as caught:
        mapper(record)
    assert caught.value.file_name == record["file_name"]
    with pytest.raises(BadSampleError, match=r"a\.png: the image has \(60, 80\)"):
        mapper({**record, "height": 61})
    with pytest.raises(BadSampleError, match=r"nowhere\.jpg: cannot be read: No such file"):
        mapper({**record, "file_name": "nowhere.jpg"})
    Image.new("L", (5, 5)).save(record["sem_seg_file_name"])
    with pytest.raises(BadSampleError, match=r"a_labels\.png: the label map has \(5, 5\)"):
        mapper(record)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image_format": "HSV"}, "image_format 'HSV'"),
        ({"image_format": "RGB", "instance_mask_format": "rle"}, "instance_mask_format 'rle'"),
        ({"image_format": "RGB", "recompute_boxes": True}, "needs use_instance_mask"),
    ],
)
def test_nonsense_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        DatasetMapper(True, augmentations=[], **arguments)


def test_real_annotations_all_pass(test_data):
    folder = test_data / "tiny_coco"
    for task, keypoints in (("instances", False), ("person_keypoints", True)):
        content = json.loads((folder / "annotations" / f"{task}_val2017.json").read_text())
        mapper = DatasetMapper(
            True,
            augmentations=[T.ResizeShortestEdge(100), T.RandomFlip()],
            image_format="BGR",
            use_instance_mask=True,
            use_keypoint=keypoints,
            keypoint_hflip_indices=np.arange(17),
        )
        total = 0
        for image in content["images"][:20]:
            own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            annotations = [{**a, "bbox_mode": BoxMode.XYWH_ABS} for a in own]
            name = str(folder / "val2017" / image["file_name"])
            size = {"height": image["height"], "width": image["width"]}
            sample = mapper({"file_name": name, **size, "image_id": image["id"], "annotations": annotations})
            assert len(sample["instances"]) == sum(not a["iscrowd"] for a in own)
            total += len(sample["instances"])
        assert total > 20
