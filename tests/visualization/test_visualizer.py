import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hookline.structures import BitMasks, Boxes, BoxMode, Instances, Keypoints, PolygonMasks
from hookline.visualization import ColorMode, Visualizer

GREY = np.full((120, 160, 3), 90, np.uint8)
METADATA = SimpleNamespace(
    thing_classes=["a", "b"],
    thing_colors=[(255, 0, 0), (0, 0, 255)],
    keypoint_names=["head", "hand"],
    keypoint_connection_rules=[("head", "hand", (0, 255, 0))],
)


def changed(output, image=GREY):
    return (output.get_image() != image).any(2)


def predictions():
    mask = torch.zeros(2, 120, 160, dtype=torch.bool)
    mask[0, 20:60, 20:80] = True
    mask[1, 70:100, 100:140] = True
    return Instances(
        (120, 160),
        pred_boxes=Boxes(torch.tensor([[20.0, 20, 80, 60], [100, 70, 140, 100]])),
        pred_classes=torch.tensor([0, 1]),
        scores=torch.tensor([0.9, 0.8]),
        pred_masks=mask,
    )


def test_predictions_are_tinted_in_their_class_colour():
    picture = Visualizer(GREY, METADATA).draw_instance_predictions(predictions()).get_image().astype(int)
    assert picture.shape == GREY.shape
    inside = picture[40, 50] - 90
    assert inside[0] > 0 > inside[2]
    inside = picture[90, 120] - 90
    assert inside[2] > 0 > inside[0]
    assert (picture[110:, :90] == 90).all()


def test_predictions_without_some_fields():
    instances = predictions()
    instances.remove("pred_masks")
    framed = changed(Visualizer(GREY, METADATA).draw_instance_predictions(instances))
    assert framed[20:60, 20].all()
    assert not framed[30:50, 30:70].any()
    instances.remove("pred_classes")
    assert changed(Visualizer(GREY).draw_instance_predictions(instances)).any()
    for name in ("pred_boxes", "scores"):
        instances.remove(name)
    nothing = Instances((120, 160))
    assert not changed(Visualizer(GREY, METADATA).draw_instance_predictions(nothing)).any()


def test_no_objects_no_change():
    none = predictions()[torch.zeros(2, dtype=torch.bool)]
    assert not changed(Visualizer(GREY, METADATA).draw_instance_predictions(none)).any()
    assert not changed(Visualizer(GREY, METADATA).draw_dataset_dict({})).any()


def test_scale_enlarges_picture_and_coordinates():
    plain = changed(Visualizer(GREY, METADATA).draw_instance_predictions(predictions()))
    output = Visualizer(GREY, METADATA, scale=2.5).draw_instance_predictions(predictions())
    assert (output.height, output.width) == (300, 400)
    image = output.get_image()
    assert (
        image[int(40 * 2.5), int(50 * 2.5)]
        == Visualizer(GREY, METADATA).draw_instance_predictions(predictions()).get_image()[40, 50]
    ).all()
    assert plain[40, 50]


def test_record_with_polygon_rle_crowd_and_keypoints():
    record = {
        "annotations": [
            {
                "bbox": [20, 20, 60, 40],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 0,
                "segmentation": [[20, 20, 80, 20, 80, 60, 20, 60]],
                "keypoints": [30, 30, 2, 70, 50, 2],
            },
            {
                "bbox": [100, 70, 140, 100],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 1,
                "iscrowd": 1,
                "segmentation": {"size": [120, 160], "counts": [100 * 120 + 70, 30, 160 * 120 - 100 * 120 - 100]},
            },
        ]
    }
    picture = Visualizer(GREY, METADATA).draw_dataset_dict(record).get_image().astype(int)
    assert picture[40, 50, 1] > 200  # the bone is green
    assert (picture[75:95, 100, 2] > 90).all()
    assert (picture[75:95, 120] == 90).all()


def test_invisible_keypoints_and_bones_without_an_end_are_left_out():
    keypoints = torch.tensor([[[30.0, 60, 0.9], [130, 60, 0.0]]])
    picture = changed(Visualizer(GREY, METADATA).overlay_instances(keypoints=keypoints))
    assert picture[60, 30]
    assert not picture[:, 60:].any()


def test_a_persons_bones_are_known_by_name():
    metadata = SimpleNamespace(keypoint_names=["left_shoulder", "left_elbow"])
    keypoints = torch.tensor([[[30.0, 60, 2], [130, 60, 2]]])
    assert changed(Visualizer(GREY, metadata).overlay_instances(keypoints=keypoints))[60, 40:120].all()
    metadata.keypoint_connection_rules = []
    assert not changed(Visualizer(GREY, metadata).overlay_instances(keypoints=keypoints))[60, 60:100].any()


@pytest.mark.parametrize("polygons", [True, False])
def test_sample(polygons):
    mask = np.zeros((1, 120, 160), bool)
    mask[0, 20:60, 20:80] = True
    outline = [[np.array([20.0, 20, 80, 20, 80, 60, 20, 60])]]
    instances = Instances(
        (120, 160),
        gt_boxes=Boxes(torch.tensor([[20.0, 20, 80, 60]])),
        gt_classes=torch.tensor([0]),
        gt_masks=PolygonMasks(outline) if polygons else BitMasks(torch.from_numpy(mask)),
        gt_keypoints=Keypoints(torch.tensor([[[30.0, 30, 2], [70, 50, 1]]])),
    )
    sample = {"image": torch.full((3, 120, 160), 90, dtype=torch.uint8), "instances": instances}
    picture = changed(Visualizer(GREY, METADATA).draw_sample(sample))
    assert picture[21:59, 21:79].all()
    with pytest.raises(ValueError, match=r"the sample's image has the size \(120, 160\)"):
        Visualizer(np.zeros((50, 60, 3), np.uint8)).draw_sample(sample)


def test_label_maps_leave_void_alone(tmp_path):
    labels = np.full((120, 160), 255, np.uint8)
    labels[:, :80] = 1
    metadata = SimpleNamespace(stuff_classes=["sky", "road"], stuff_colors=[(0, 0, 9), (255, 0, 0)])
    picture = changed(Visualizer(GREY, metadata).draw_sem_seg(labels))
    assert picture[:, :79].all()
    assert not picture[:, 81:].any()
    Image.fromarray(labels).save(tmp_path / "labels.png")
    record = {"sem_seg_file_name": str(tmp_path / "labels.png")}
    assert np.array_equal(changed(Visualizer(GREY, metadata).draw_dataset_dict(record)), picture)


def test_modes():
    colorful = np.stack([np.full((120, 160), v, np.uint8) for v in (200, 50, 20)], 2)
    both = predictions()
    both.pred_classes[1] = 0
    both.scores[:] = 0.5
    exact = Visualizer(GREY, METADATA, instance_mode=ColorMode.SEGMENTATION).draw_instance_predictions(both).get_image()
    assert (exact[50, 70] == exact[95, 130]).all()
    shaded = Visualizer(GREY, METADATA).draw_instance_predictions(both).get_image()
    assert (shaded[50, 70] != shaded[95, 130]).any()
    grey = Visualizer(colorful, METADATA, instance_mode=ColorMode.IMAGE_BW).draw_instance_predictions(both).get_image()
    assert np.ptp(grey[110:, :90].astype(int), 2).max() == 0
    assert np.ptp(grey[50, 70].astype(int)) > 50


def test_small_objects_lie_over_large_ones():
    boxes = torch.tensor([[60.0, 50, 70, 60], [10, 10, 150, 110]])
    masks = [[[60, 50, 70, 50, 70, 60, 60, 60]], [[10, 10, 150, 10, 150, 110, 10, 110]]]
    colors = ["#00ff00", "#ff0000"]
    picture = Visualizer(GREY).overlay_instances(boxes=boxes, masks=masks, assigned_colors=colors, alpha=1.0)
    assert picture.get_image()[55, 65].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"boxes": [[0, 0, 1, 1]], "labels": ["a", "b"]}, "different numbers of objects: {'boxes': 1, 'labels': 2}"),
        ({"boxes": [[0, 0, 1]]}, "boxes are"),
        ({"boxes": [[0, 0, 1, 1]], "assigned_colors": ["red"]}, "colour"),
    ],
)
def test_contradictions_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Visualizer(GREY).overlay_instances(**arguments)


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"\(H, W, 3\) RGB, got shape \(3, 20, 30\)"):
        Visualizer(np.zeros((3, 20, 30)))
    with pytest.raises(ValueError, match="scale"):
        Visualizer(GREY, scale=0)


def test_real_annotations(test_data):
    """Every annotated image of the COCO sample can be drawn, and every object leaves a trace."""
    folder = test_data / "tiny_coco"
    content = json.loads((folder / "annotations/person_keypoints_val2017.json").read_text())
    category = content["categories"][0]
    metadata = SimpleNamespace(thing_classes=["person"], keypoint_names=category["keypoints"])
    by_image = {}
    for annotation in content["annotations"]:
        annotation |= {"category_id": 0, "bbox_mode": BoxMode.XYWH_ABS}
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    drawn = 0
    for image in content["images"][:12]:
        annotations = by_image.get(image["id"], [])
        with Image.open(folder / "val2017" / image["file_name"]) as file:
            picture = np.asarray(file.convert("RGB"))
        output = Visualizer(picture, metadata).draw_dataset_dict({"annotations": annotations})
        difference = changed(output, picture)
        assert difference.any() == bool(annotations)
        for annotation in annotations:
            x, y, w, h = map(int, annotation["bbox"])
            assert difference[y : y + h + 1, x : x + w + 1].any()
            drawn += 1
    assert drawn > 20
