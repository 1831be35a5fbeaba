import json
from types import SimpleNamespace

import pytest
import torch

from hookline.evaluation import COCOEvaluator, records_to_coco
from hookline.evaluation.ground_truth import load_ground_truth
from hookline.structures import Boxes, BoxMode, Instances

SQUARE = [2.0, 2, 12, 2, 12, 12, 2, 12]


def record(image_id, box, category=0, **extra):
    annotation = {"id": 5, "bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": category, **extra}
    return {"file_name": "a.jpg", "height": 20, "width": 30, "image_id": image_id, "annotations": [annotation]}


@pytest.fixture
def metadata(tiny_json):
    return SimpleNamespace(
        json_file=str(tiny_json), thing_classes=["cat", "dog"], thing_dataset_id_to_contiguous_id={3: 0, 11: 1}
    )


def test_the_original_file_counts_where_records_name_one(metadata):
    # the record's own box is not looked at
    truth = load_ground_truth([record(7, [0, 0, 1, 1]), record(9, [0, 0, 1, 1])], metadata)
    assert truth.source == metadata.json_file
    assert [row["bbox"] for row in truth.annotations] == [[2, 2, 10, 10], [5, 5, 8, 8]]
    assert truth.category_ids == [3, 11]


def test_the_original_file_is_restricted_to_the_records(metadata):
    truth = load_ground_truth([record(9, [0, 0, 1, 1])], metadata)
    assert [image["id"] for image in truth.images] == [9]
    assert [row["image_id"] for row in truth.annotations] == [9]


def test_metadata_may_be_a_dict_and_the_mapping_may_turn_the_order(metadata):
    turned = {**vars(metadata), "thing_dataset_id_to_contiguous_id": {3: 1, 11: 0}, "thing_classes": ["dog", "cat"]}
    truth = load_ground_truth([record(7, [0, 0, 1, 1])], turned)
    assert truth.category_ids == [11, 3]


def test_a_json_file_of_another_format_leaves_the_records(metadata, tmp_path):
    via = tmp_path / "via_region_data.json"
    via.write_text(json.dumps({"a.jpg1": {"filename": "a.jpg", "regions": {}}}))
    metadata.json_file = str(via)
    truth = load_ground_truth([record("a", [1, 2, 4, 6])], metadata)
    assert truth.source == "the records"
    assert truth.annotations[0]["bbox"] == [1, 2, 3, 4]
    assert truth.category_ids == [3, 11]


def test_records_of_two_data_sets_leave_one_file(metadata):
    truth = load_ground_truth([record(7, [1, 2, 4, 6]), record("other", [1, 2, 4, 6])], metadata)
    assert truth.source == "the records"


def test_records_become_coco():
    crowd = {"size": [20, 30], "counts": [30, 40, 530]}
    records = [
        record(0, [2, 2, 12, 12], segmentation=[SQUARE]),
        record(1, [0, 0, 30, 20], 1, segmentation=crowd, iscrowd=1),
        record(2, [1, 1, 3, 3], keypoints=[10.5, 4.5, 2, 0.5, 0.5, 0]),
    ]
    content = records_to_coco(records, ["a", "b"])
    assert content["categories"] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    assert [image["id"] for image in content["images"]] == [0, 1, 2]
    first, second, third = content["annotations"]
    assert first["bbox"] == [2, 2, 10, 10]
    assert (first["area"], first["segmentation"], first["iscrowd"]) == (100, [SQUARE], 0)
    assert (second["area"], second["iscrowd"], second["category_id"]) == (40, 1, 2)
    assert isinstance(second["segmentation"]["counts"], bytes)
    assert third["keypoints"] == [10, 4, 2, 0, 0, 0]
    assert (third["num_keypoints"], third["area"]) == (1, 4)
    with pytest.raises(ValueError, match=r"annotation 5 of image 3 \(a.jpg\): category_id 2, but there are 2 classes"):
        records_to_coco([record(3, [0, 0, 1, 1], 2)], ["a", "b"])


def test_evaluating_records_end_to_end():
    evaluator = COCOEvaluator([record(0, [2, 2, 12, 12], segmentation=[SQUARE])], metadata={"thing_classes": ["a"]})
    evaluator.reset()
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[:, 2:12, 2:12] = True
    instances = Instances(
        (20, 30),
        pred_boxes=Boxes([[2, 2, 12, 12]]),
        scores=torch.ones(1),
        pred_classes=torch.tensor([0]),
        pred_masks=mask,
    )
    evaluator.process([{"image_id": 0}], [{"instances": instances}])
    results = evaluator.evaluate()
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP75"] == pytest.approx(100)


def test_annotations_without_keypoints_are_ignored_in_that_task(tiny_json):
    content = json.loads(tiny_json.read_text())
    content["annotations"][0]["keypoints"] = [5, 5, 2, 8, 8, 1]
    tiny_json.write_text(json.dumps(content))
    truth = load_ground_truth(tiny_json)
    with_points, without = truth.annotations_for("keypoints")
    assert with_points["num_keypoints"] == 2
    assert (without["keypoints"], without["num_keypoints"]) == ([0] * 6, 0)


def test_what_a_file_leaves_out_is_filled_in(tiny_json):
    content = json.loads(tiny_json.read_text())
    for key in ("area", "iscrowd", "id"):
        del content["annotations"][0][key]
    content["annotations"].append({"id": 5, "image_id": 1000, "category_id": 3})  # of an image that is not listed
    tiny_json.write_text(json.dumps(content))
    first = load_ground_truth(tiny_json).annotations[0]
    assert (first["area"], first["iscrowd"], first["id"]) == (100, 0, 1)
    assert len(load_ground_truth(tiny_json).annotations) == 2


def test_refusals(tiny_json, tmp_path, metadata):
    with pytest.raises(FileNotFoundError, match=r"no file 'balloon_val'.*get_detection_dataset_dicts"):
        load_ground_truth("balloon_val")
    with pytest.raises(ValueError, match="need metadata with thing_classes"):
        load_ground_truth([record(0, [0, 0, 1, 1])])
    broken = tmp_path / "broken.json"
    broken.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"broken.json is no JSON file: .*line 1"):
        load_ground_truth(broken)
    broken.write_text('{"images": [], "categories": 3}')
    with pytest.raises(ValueError, match="no COCO annotation file: it has no list 'annotations', 'categories'"):
        load_ground_truth(broken)
    metadata.thing_dataset_id_to_contiguous_id = {3: 0, 12: 1}
    with pytest.raises(ValueError, match="has no category 12"):
        load_ground_truth([record(7, [0, 0, 1, 1])], metadata)
    content = json.loads(tiny_json.read_text())
    del content["annotations"][1]["bbox"]
    tiny_json.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"tiny.json: annotation 2 of image 9 has no 'bbox'"):
        load_ground_truth(tiny_json)


def test_keypoints_need_one_number_of_them(tiny_json):
    truth = load_ground_truth(tiny_json)
    with pytest.raises(ValueError, match="needs annotations with keypoints, there are none"):
        truth.annotations_for("keypoints")
    for length, annotation in zip((6, 9), truth.annotations, strict=True):
        annotation["keypoints"] = [1] * length
    with pytest.raises(ValueError, match=r"different numbers of them: \[2, 3\]"):
        truth.annotations_for("keypoints")
