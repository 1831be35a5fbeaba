import copy
import json
import math

import pytest
from PIL import Image

from hookline.data.catalog import DatasetCatalog, MetadataCatalog
from hookline.data.datasets import AnnotationFileError, load_via_json, register_via_instances
from hookline.data.datasets.to_coco import polygon_area
from hookline.structures import BoxMode

TRIANGLE = {"name": "polygon", "all_points_x": [2, 8, 8, 2], "all_points_y": [1, 1, 5, 1]}
RECT = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def entry(name, regions):
    return {"filename": name, "size": 1, "regions": regions, "file_attributes": {}}


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "b.jpg")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=rotated)
    return tmp_path


@pytest.fixture
def load(folder):
    def load(content, **options):
        path = folder / "via.json"
        path.write_text(json.dumps(content))
        return load_via_json(path, folder, **options)

    return load


VERSION_1 = {"b.jpg1": entry("b.jpg", {"0": region(TRIANGLE), "1": region(RECT)}), "a.jpg1": entry("a.jpg", {})}
EXPORT_2 = {"b.jpg1": entry("b.jpg", [region(TRIANGLE), region(RECT)]), "a.jpg1": entry("a.jpg", [])}
PROJECT_2 = {"_via_settings": {}, "_via_img_metadata": EXPORT_2, "_via_attributes": {"region": {}, "file": {}}}


@pytest.mark.parametrize("content", [VERSION_1, EXPORT_2, PROJECT_2], ids=["1", "2 export", "2 project"])
def test_both_versions_in_the_order_of_the_file(folder, load, content):
    records = load(content)
    assert [r["file_name"] for r in records] == [str(folder / "b.jpg"), str(folder / "a.jpg")]
    assert [r["image_id"] for r in records] == [0, 1]
    assert [(r["height"], r["width"]) for r in records] == [(10, 20), (20, 10)]  # the second one is shown on its side
    assert records[1]["annotations"] == []
    assert records[0]["annotations"] == [
        {
            "id": 1,
            "bbox": [2, 1, 8, 5],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 0,
            "iscrowd": 0,
            "segmentation": [[2, 1, 8, 1, 8, 5]],
        },
        {
            "id": 2,
            "bbox": [1, 2, 4, 6],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 0,
            "iscrowd": 0,
            "segmentation": [[1, 2, 4, 2, 4, 6, 1, 6]],
        },
    ]


def test_the_balloons(test_data, monkeypatch):
    monkeypatch.setenv("HOOKLINE_DATASETS", str(test_data))
    for split, images, polygons in (("train", 61, 255), ("val", 13, 50)):
        records = DatasetCatalog.get(f"balloon_{split}")
        annotations = [a for r in records for a in r["annotations"]]
        assert (len(records), len(annotations)) == (images, polygons)
        assert [a["id"] for a in annotations] == list(range(1, polygons + 1))
        for record in records:
            with Image.open(record["file_name"]) as image:
                assert image.size == (record["width"], record["height"])
            for a in record["annotations"]:
                assert 0 <= a["bbox"][0] < a["bbox"][2] <= record["width"]
                assert 0 <= a["bbox"][1] < a["bbox"][3] <= record["height"]
    assert MetadataCatalog.get("balloon_val").image_root == str(test_data / "balloon/val")


def test_round_shapes_become_polygons(load):
    circle = {"name": "circle", "cx": 9, "cy": 5, "r": 4}
    ellipse = {"name": "ellipse", "cx": 9, "cy": 5, "rx": 4, "ry": 2}
    turned = ellipse | {"theta": math.pi / 2}
    records = load({"b": entry("b.jpg", [region(circle), region(ellipse), region(turned)])})
    boxes = [a["bbox"] for a in records[0]["annotations"]]
    assert boxes[0] == pytest.approx([5, 1, 13, 9])
    assert boxes[1] == pytest.approx([5, 3, 13, 7])
    assert boxes[2] == pytest.approx([7, 1, 11, 9])
    areas = [polygon_area(a["segmentation"][0]) for a in records[0]["annotations"]]
    assert areas == pytest.approx([16 * math.pi, 8 * math.pi, 8 * math.pi], rel=0.002)


def two_classes(**first):
    return {"b": entry("b.jpg", [region(RECT, **(first or {"kind": "dog"})), region(RECT, kind="cat")])}


def test_classes_from_an_attribute(load):
    records = load(two_classes(), class_attribute="kind", dataset_name=None)
    assert [a["category_id"] for a in records[0]["annotations"]] == [1, 0]  # alphabetical: cat, dog
    records = load(two_classes(), thing_classes=["dog", "cat"])  # the only attribute
    assert [a["category_id"] for a in records[0]["annotations"]] == [0, 1]
    records = load(two_classes(), thing_classes=["animal"])
    assert [a["category_id"] for a in records[0]["annotations"]] == [0, 0]


def test_classes_from_the_options_of_a_project(load):
    options = {"region": {"kind": {"type": "radio", "options": {"dog": "", "cat": "", "cow": ""}}}, "file": {}}
    content = {"_via_img_metadata": two_classes(), "_via_attributes": options}
    records = load(content, class_attribute="kind")
    assert [a["category_id"] for a in records[0]["annotations"]] == [0, 1]


def test_a_checkbox_with_one_tick_is_a_class(load):
    records = load(two_classes(kind={"dog": True, "cat": False}), thing_classes=["cat", "dog"])
    assert [a["category_id"] for a in records[0]["annotations"]] == [1, 0]


def test_a_registered_set(folder):
    (folder / "via.json").write_text(json.dumps(two_classes()))
    register_via_instances("via_test", folder / "via.json", folder, ["cat", "dog"])
    try:
        assert MetadataCatalog.get("via_test").thing_classes == ["cat", "dog"]
        assert [a["category_id"] for a in DatasetCatalog.get("via_test")[0]["annotations"]] == [1, 0]
    finally:
        DatasetCatalog.remove("via_test")
        MetadataCatalog.remove("via_test")


def with_shape(shape):
    return {"b": entry("b.jpg", [region(RECT), region(shape)])}


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ([1], {}, "not VIA: the top level is a list"),
        ({"x": {"filename": "b.jpg"}}, {}, "not VIA: 'x' has no 'filename' and 'regions'"),
        ({"images": [], "annotations": [], "categories": []}, {}, "this looks like a COCO file"),
        (with_shape({"name": "point", "cx": 1, "cy": 1}), {}, "image 'b.jpg', region 1: a point encloses no area"),
        (with_shape({"name": "polyline"}), {}, "region 1: a polyline encloses no area; polygon, rect"),
        (with_shape({"name": "circle", "cx": 1}), {}, "region 1: circle is not whole: KeyError 'cy'"),
        (with_shape({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}), {}, "2 x and 2 y"),
        (with_shape({"name": "polygon", "all_points_x": [1, 2, "q"], "all_points_y": [1, 2, 3]}), {}, "not whole"),
        (with_shape(None), {}, "no shape_attributes"),
        (two_classes(), {}, r"regions have the attributes \['kind'\]: say which one is the class"),
        (two_classes(), {"class_attribute": "knd"}, "no region has the attribute 'knd'; did you mean 'kind'"),
        (two_classes(), {"thing_classes": []}, "thing_classes is empty"),
        (two_classes(size="1"), {"thing_classes": ["a", "b"]}, r"2 classes need class_attribute.*\['kind', 'size'\]"),
        (two_classes(kind="dogg"), {"thing_classes": ["cat", "dog"]}, "region 0: class 'dogg'.*did you mean 'dog'"),
        (two_classes(kind=" "), {"thing_classes": ["cat", "dog"]}, "region 0: no 'kind', so it has no class"),
        (two_classes(kind={"a": True, "b": True}), {"class_attribute": "kind"}, "must tick one class"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_image_and_region(folder, load, content, options, words):
    with pytest.raises(AnnotationFileError, match=words) as caught:
        load(copy.deepcopy(content), **options)
    assert str(caught.value).startswith(f"{folder / 'via.json'}: ")


def test_a_missing_image_is_named(folder, load):
    with pytest.raises(FileNotFoundError, match=rf"image 'c.jpg' of {folder}/via.json: no file {folder}/c.jpg"):
        load({"c": entry("c.jpg", [])})


def test_an_image_that_is_none_is_named(folder, load):
    (folder / "c.jpg").write_text("no image")
    with pytest.raises(AnnotationFileError, match=rf"image {folder}/c.jpg cannot be read"):
        load({"c": entry("c.jpg", [])})
