import copy
import json

import pycocotools.mask as mask_util
import pytest
from pycocotools.coco import COCO

from hookline.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from hookline.data.datasets import AnnotationFileError, convert_to_coco_dict, load_coco_json, register_coco_instances
from hookline.structures import BoxMode

GOOD = {
    "images": [
        {"id": 7, "file_name": "b.jpg", "height": 4, "width": 6},
        {"id": 3, "file_name": "a.jpg", "height": 5, "width": 5},
    ],
    "annotations": [
        {
            "id": 11,
            "image_id": 7,
            "category_id": 90,
            "bbox": [1, 1, 2, 2],
            "area": 4,
            "iscrowd": 0,
            "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]],
            "keypoints": [1, 2, 2, 0, 0, 0],
            "score": 0.5,
        },
        {
            "id": 12,
            "image_id": 7,
            "category_id": 4,
            "bbox": [0, 0, 6, 1],
            "iscrowd": 1,
            "segmentation": {"size": [4, 6], "counts": [0, 1, 3, 1, 19]},
        },
    ],
    "categories": [{"id": 90, "name": "brush"}, {"id": 4, "name": "plane"}],
}


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "coco.json"
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def forget():
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        if "coco_test" in catalog:
            catalog.remove("coco_test")


def changed(*path, **new):
    content = copy.deepcopy(GOOD)
    node = content
    for key in path:
        node = node[key]
    for key, value in new.items():
        if value is None:
            del node[key]
        else:
            node[key] = value
    return content


def test_records_in_the_order_of_the_file(write):
    records = load_coco_json(write(GOOD), "root", extra_annotation_keys=["score"])
    assert [r["file_name"] for r in records] == ["root/b.jpg", "root/a.jpg"]
    assert [r["image_id"] for r in records] == [7, 3]
    assert (records[0]["height"], records[0]["width"]) == (4, 6)
    assert records[1]["annotations"] == []
    first, crowd = records[0]["annotations"]
    assert first == {
        "id": 11,
        "bbox": [1, 1, 2, 2],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 1,
        "iscrowd": 0,
        "area": 4,
        "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]],
        "keypoints": [1.5, 2.5, 2, 0, 0, 0],
        "score": 0.5,
    }
    assert crowd["category_id"] == 0
    assert crowd["iscrowd"] == 1
    assert mask_util.decode(crowd["segmentation"]).sum() == 2


def test_real_instances_equal_what_pycocotools_reads(test_data):
    file = test_data / "tiny_coco/annotations/instances_train2017.json"
    records = load_coco_json(file, test_data / "tiny_coco/train2017")
    coco = COCO(str(file))
    order = sorted(coco.cats)
    assert [r["image_id"] for r in records] == [image["id"] for image in coco.dataset["images"]]
    assert sum(not r["annotations"] for r in records) == sum(not coco.getAnnIds([r["image_id"]]) for r in records)
    for record in records:
        expected = {a["id"]: a for a in coco.loadAnns(coco.getAnnIds([record["image_id"]]))}
        assert {a["id"] for a in record["annotations"]} == set(expected)
        for annotation in record["annotations"]:
            theirs = expected[annotation["id"]]
            assert annotation["bbox"] == theirs["bbox"]
            assert order[annotation["category_id"]] == theirs["category_id"]
            assert annotation["area"] == theirs["area"]
            mine = annotation["segmentation"]
            if isinstance(mine, dict):
                assert (mask_util.decode(mine) == coco.annToMask(theirs)).all()
            else:
                assert mine == theirs["segmentation"]
        assert (test_data / "tiny_coco/train2017" / record["file_name"]).is_file()


def test_real_keypoints_have_17_points(test_data):
    root = test_data / "tiny_coco"
    records = load_coco_json(root / "annotations/person_keypoints_val2017.json", root / "val2017")
    with_points = [a for r in records for a in r["annotations"] if any(v > 0 for v in a["keypoints"][2::3])]
    assert len(with_points) == 46
    assert {len(a["keypoints"]) for a in with_points} == {51}


@pytest.mark.parametrize("name", ["instances", "person_keypoints"])
def test_conversion_back_gives_the_file_again(test_data, name, forget):
    root = test_data / "tiny_coco"
    file = root / f"annotations/{name}_val2017.json"
    records = load_coco_json(file, root / "val2017", "coco_test")
    back = convert_to_coco_dict(records, MetadataCatalog.get("coco_test"), image_root=root / "val2017")
    theirs = json.loads(file.read_text())
    assert json.loads(json.dumps(back)) == back
    assert [(i["id"], i["file_name"]) for i in back["images"]] == [(i["id"], i["file_name"]) for i in theirs["images"]]
    expected = {a["id"]: a for a in theirs["annotations"]}
    assert len(back["annotations"]) == len(expected)
    for annotation in back["annotations"]:
        original = expected[annotation["id"]]
        for key in ("image_id", "category_id", "bbox", "area", "iscrowd"):
            assert annotation[key] == original[key]
        if "keypoints" in original:
            assert annotation["keypoints"] == original["keypoints"]
            assert annotation["num_keypoints"] == original["num_keypoints"]


def test_areas_are_computed_where_the_records_have_none():
    square = [1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]
    base = {"bbox": [1, 1, 4, 3], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    rle = mask_util.encode(mask_util.decode(mask_util.frPyObjects([square], 5, 5))[..., 0])
    record = {"file_name": "a.jpg", "height": 5, "width": 5, "image_id": 0}
    record["annotations"] = [base, base | {"segmentation": [square]}, base | {"segmentation": rle}]
    back = convert_to_coco_dict([record], Metadata(thing_classes=["x"]))
    assert [a["area"] for a in back["annotations"]] == [6, 6, 6]
    assert [a["id"] for a in back["annotations"]] == [1, 2, 3]
    assert back["annotations"][0]["bbox"] == [1, 1, 3, 2]
    assert isinstance(back["annotations"][2]["segmentation"]["counts"], str)


def test_a_registered_set_fills_its_metadata(write, forget):
    path = write(GOOD)
    register_coco_instances("coco_test", {"keypoint_names": ["a", "b"]}, path, "root")
    assert MetadataCatalog.get("coco_test").json_file == str(path)
    assert len(DatasetCatalog.get("coco_test")) == 2
    entry = MetadataCatalog.get("coco_test")
    assert entry.thing_classes == ["plane", "brush"]
    assert entry.thing_dataset_id_to_contiguous_id == {4: 0, 90: 1}
    assert entry.keypoint_names == ["a", "b"]
    assert len(DatasetCatalog.get("coco_test")) == 2


def test_declared_classes_give_the_order(write, forget):
    register_coco_instances("coco_test", {"thing_classes": ["brush", "plane"]}, write(GOOD), "root")
    records = DatasetCatalog.get("coco_test")
    assert [a["category_id"] for a in records[0]["annotations"]] == [0, 1]


def test_a_misspelt_class_is_refused(write, forget):
    register_coco_instances("coco_test", {"thing_classes": ["plane", "brsh"]}, write(GOOD), "root")
    with pytest.raises(AnnotationFileError, match=r"only in the metadata: \['brsh'\]; did you mean 'brush'"):
        DatasetCatalog.get("coco_test")


def test_images_alone_are_enough_for_a_test_set(write):
    assert [r["annotations"] for r in load_coco_json(write(changed(annotations=None)), "root")] == [[], []]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "the top level is a list"),
        (changed(images=None), "no 'images' at the top level, only annotations, categories"),
        ({"x.jpg12": {"filename": "x.jpg", "regions": {}}}, "this looks like a VIA file"),
        (changed(annotations={"a": 1}), "'annotations' must be a list of objects"),
        (changed(categories=[]), "'categories' is empty"),
        (changed("categories", 0, name=None), "lacks an 'id' or a 'name'"),
        (changed("categories", 0, id=4), "category id 4 appears twice"),
        (changed("images", 0, height=None), "image 7 has no 'height'"),
        (changed("images", 0, width=0), r"image 7 \(b.jpg\): size 4 x 0"),
        (changed("images", 0, id=3), "image id 3 appears twice"),
        (changed("annotations", 1, id=11), "annotation id 11 appears twice"),
        (changed("annotations", 0, image_id=70), "annotation 11 belongs to image 70, which 'images' does not have"),
        (changed("annotations", 0, category_id=5), "annotation 11 of image 7: no category 5; categories: 4, 90"),
        (changed("annotations", 0, bbox=None), "annotation 11 has no 'bbox'"),
        (changed("annotations", 0, bbox=[1, 2]), r"annotation 11: bbox \[1, 2\]"),
        (changed("annotations", 0, keypoints=[1, 2]), "annotation 11: keypoints must be"),
        (changed("annotations", 0, segmentation="abc"), "annotation 11: segmentation is neither polygons nor RLE"),
        (
            changed("annotations", 1, "segmentation", size=[6, 4]),
            r"annotation 12: RLE of size \[6, 4\] in an image of 4 x 6",
        ),
        (changed("annotations", 1, "segmentation", counts=None), "annotation 12: RLE without 'counts'"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_id(write, content, words):
    path = write(content)
    with pytest.raises(AnnotationFileError, match=words) as caught:
        load_coco_json(path, "root")
    assert str(caught.value).startswith(f"{path}: ")


def test_boxes_that_are_lines_are_left_out_and_named(write, caplog):
    content = copy.deepcopy(GOOD)
    content["annotations"][0]["bbox"] = [1, 1, 2, 0]
    records = load_coco_json(write(content), "images")
    assert [a["id"] for record in records for a in record["annotations"]] == [12]
    assert "no width or no height: 11" in caplog.text
