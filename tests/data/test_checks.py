import copy

import numpy as np
import pytest

from hookline.data.catalog import Metadata, MetadataCatalog
from hookline.data.checks import DatasetCheckError, check_records, class_counts, class_table, missing_files
from hookline.data.datasets import load_coco_json
from hookline.structures import BoxMode

GOOD = {
    "id": 5,
    "bbox": [1, 1, 3, 3],
    "bbox_mode": BoxMode.XYXY_ABS,
    "category_id": 1,
    "iscrowd": 0,
    "segmentation": [[1, 1, 3, 1, 3, 3]],
    "keypoints": [1, 1, 2, 0, 0, 0],
}
METADATA = Metadata("mine", thing_classes=["a", "b"], keypoint_names=["nose", "tail"])


@pytest.fixture
def records(tmp_path):
    (tmp_path / "a.jpg").touch()
    name = str(tmp_path / "a.jpg")
    return [{"file_name": name, "height": 8, "width": 10, "image_id": 0, "annotations": [copy.deepcopy(GOOD)]}]


def test_good_records_pass(records):
    check_records(records, METADATA, 2)
    check_records(records, None, None)


def test_real_data_passes(test_data):
    root = test_data / "tiny_coco"
    try:
        records = load_coco_json(
            root / "annotations/person_keypoints_train2017.json", root / "train2017", "checks_test"
        )
        check_records(records, MetadataCatalog.get("checks_test"), 1)
    finally:
        MetadataCatalog.remove("checks_test")


def test_class_counts_of_model_and_data_must_agree(records):
    with pytest.raises(DatasetCheckError, match="the model has 80 classes, the data set 2: a, b"):
        check_records(records, METADATA, 80)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category_id": 2}, "category id 2 is not in 0 to 1"),
        ({"category_id": -1}, "category id -1"),
        ({"category_id": "b"}, "category id 'b'"),
        ({"bbox": [1, 1, 3]}, "no box: "),
        ({"bbox": [3, 1, 1, 3]}, r"box \[3.0, 1.0, 1.0, 3.0\] \(x0, y0, x1, y1\) has a negative size"),
        ({"bbox": [1, 1, float("nan"), 3]}, "is not finite"),
        ({"bbox": [10, 1, 12, 3]}, "lies outside of the image, which is 10 wide and 8 high"),
        ({"bbox": [1, -4, 3, 0]}, "lies outside of the image"),
        ({"bbox_mode": None}, "no box: "),
        ({"segmentation": [[1, 1, 3, 1]]}, "a polygon of 4 numbers; at least three points"),
        ({"segmentation": [[1, 1, 3, 1, 2, 2, 5]]}, "a polygon of 7 numbers"),
        ({"segmentation": [[1, 1, 3, 1, 2, float("inf")]]}, "numbers that are not finite"),
        ({"segmentation": {"size": [10, 8], "counts": b""}}, r"its RLE is \[10, 8\], the image 8 x 10"),
        ({"keypoints": [1, 1, 2]}, "3 numbers for 2 keypoints"),
    ],
)
def test_a_bad_annotation_is_named_by_file_and_id(records, change, words):
    records[0]["annotations"][0].update(change)
    with pytest.raises(DatasetCheckError, match=rf"a\.jpg: annotation 5: .*{words}") as caught:
        check_records(records, METADATA, 2)
    assert str(caught.value).startswith("1 problem in the data set:")


def test_a_box_without_area_is_the_mappers_business(records):
    records[0]["annotations"][0]["bbox"] = [1, 1, 3, 1]
    check_records(records, METADATA, 2)


def test_many_problems_are_counted(records):
    records[0]["annotations"] = [GOOD | {"id": i, "category_id": 9} for i in range(25)]
    with pytest.raises(DatasetCheckError) as caught:
        check_records(records, METADATA, 2)
    assert str(caught.value).startswith("25 problems in the data set:")
    assert str(caught.value).endswith("... and 15 more")


@pytest.mark.parametrize("number", [3, 300])
def test_missing_files_are_named(tmp_path, number):
    for i in range(number):
        (tmp_path / f"{i}.jpg").touch()
    records = [{"file_name": str(tmp_path / f"{i}.jpg")} for i in range(number)]
    assert list(missing_files(r["file_name"] for r in records)) == []
    (tmp_path / "1.jpg").unlink()
    assert list(missing_files(r["file_name"] for r in records)) == [str(tmp_path / "1.jpg")]
    with pytest.raises(DatasetCheckError, match=f"{tmp_path}/1.jpg: no such file"):
        check_records(records)
    check_records(records, check_files=False)


def test_label_images_must_be_there_too(records, tmp_path):
    records[0]["sem_seg_file_name"] = str(tmp_path / "a.png")
    with pytest.raises(DatasetCheckError, match=r"a\.png: no such file"):
        check_records(records, METADATA)


def test_counts_leave_crowds_out(records):
    records[0]["annotations"] += [GOOD | {"iscrowd": 1}, GOOD | {"category_id": 0}, GOOD]
    assert class_counts(records, 3).tolist() == [1, 2, 0]
    assert class_counts([], 2).dtype == np.int64
    table = class_table(records, ["ant", "bee", "cow"])
    assert all(word in table for word in ("ant", "bee", "cow", "total"))
