"""Detections with known faults, made from real ground truth, and pycocotools' own evaluation of them."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hookline.structures import Boxes, Instances


@pytest.fixture(scope="session")
def instances_json(test_data):
    return test_data / "tiny_coco/annotations/instances_val2017.json"


@pytest.fixture(scope="session")
def keypoints_json(test_data):
    return test_data / "tiny_coco/annotations/person_keypoints_val2017.json"


def noisy_instances(coco, image, contiguous, generator, with_keypoints):
    """Detections that are right, shifted, of the wrong class, missing or invented."""
    height, width = image["height"], image["width"]
    boxes, classes, masks, keypoints = [], [], [], []
    for annotation in coco.imgToAnns[image["id"]]:
        if generator.random() < 0.15:
            continue
        for _ in range(generator.integers(1, 3)):
            x, y, w, h = annotation["bbox"]
            spread = generator.choice([0.0, 0.02, 0.1])
            corners = np.array([x, y, x + w, y + h]) + generator.normal(0, spread, 4) * [w, h, w, h]
            boxes.append([*np.minimum(corners[:2], corners[2:]), *np.maximum(corners[:2], corners[2:])])
            wrong = generator.random() < 0.1
            classes.append(generator.integers(len(contiguous)) if wrong else contiguous[annotation["category_id"]])
            shift = np.round(generator.normal(0, spread, 2) * [h, w]).astype(int)
            masks.append(np.roll(coco.annToMask(annotation), shift, (0, 1)).astype(bool))
            if with_keypoints:
                points = np.array(annotation["keypoints"], dtype=float).reshape(17, 3)
                points[:, :2] += 0.5 + generator.normal(0, spread, (17, 2)) * [w, h]
                keypoints.append(points)
    for _ in range(generator.integers(0, 4)):
        low = generator.uniform(0, [width * 0.7, height * 0.7])
        boxes.append([*low, *(low + generator.uniform(1, [width * 0.3, height * 0.3]))])
        classes.append(generator.integers(len(contiguous)))
        mask = np.zeros((height, width), dtype=bool)
        mask[int(low[1]) :, int(low[0]) :] = True
        masks.append(mask)
        keypoints.append(generator.uniform(0, [width, height, 1], (17, 3)))
    count = len(boxes)
    # scores repeat, so that the order of ties matters
    scores = torch.from_numpy(generator.choice(np.linspace(0, 1, 23), count)).float()
    fields = {"pred_boxes": Boxes(np.array(boxes).reshape(-1, 4)), "scores": scores}
    fields["pred_classes"] = torch.tensor(np.array(classes, dtype=np.int64))
    fields["pred_masks"] = torch.from_numpy(np.array(masks, dtype=bool).reshape(count, height, width))
    if with_keypoints:
        fields["pred_keypoints"] = torch.from_numpy(np.array(keypoints).reshape(count, 17, 3)).float()
    return Instances((height, width), **fields)


def predictions_on(json_file, seed, with_keypoints=False):
    """Batches of (inputs, outputs) over a COCO file."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(json_file))
    contiguous = {category: number for number, category in enumerate(sorted(coco.cats))}
    generator = np.random.default_rng(seed)
    batches = []
    for image in coco.dataset["images"]:
        instances = noisy_instances(coco, image, contiguous, generator, with_keypoints)
        batches.append(([{"image_id": image["id"]}], [{"instances": instances}]))
    return batches


@pytest.fixture(scope="session")
def noisy(instances_json):
    return predictions_on(instances_json, 0)


@pytest.fixture(scope="session")
def noisy_people(keypoints_json):
    return predictions_on(keypoints_json, 1, with_keypoints=True)


def plain_results(batches, category_ids):
    """COCO results written by a plain loop, as one would by hand."""
    results = []
    for inputs, outputs in batches:
        instances = outputs[0]["instances"]
        for k in range(len(instances)):
            box = instances.pred_boxes.tensor[k].numpy().copy()
            box[2:] -= box[:2]
            mask = np.asfortranarray(instances.pred_masks[k].numpy().astype(np.uint8))
            result = {
                "image_id": inputs[0]["image_id"],
                "category_id": category_ids[int(instances.pred_classes[k])],
                "bbox": box.tolist(),
                "score": instances.scores[k].item(),
                "segmentation": mask_util.encode(mask),
            }
            if instances.has("pred_keypoints"):
                points = instances.pred_keypoints[k].numpy().copy()
                points[:, :2] -= 0.5
                result["keypoints"] = points.flatten().tolist()
            results.append(result)
    return results


@pytest.fixture(scope="session")
def pycocotools_stats():
    """Run pycocotools as its own demo does; gives its twelve (ten) numbers and the AP of each category."""

    def run(json_file, batches, task, *, sigmas=None, image_ids=None):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(json_file))
            results = copy.deepcopy(plain_results(batches, sorted(truth.cats)))
            if task == "segm":
                for result in results:
                    del result["bbox"]
            if task == "bbox":
                for result in results:
                    del result["segmentation"]
            evaluation = COCOeval(truth, truth.loadRes(results), task)
            if sigmas is not None:
                evaluation.params.kpt_oks_sigmas = np.array(sigmas)
            if image_ids is not None:
                evaluation.params.imgIds = image_ids
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        per_category = {}
        for k, category in enumerate(sorted(truth.cats)):
            values = evaluation.eval["precision"][:, :, k, 0, -1]
            values = values[values > -1]
            per_category[truth.cats[category]["name"]] = values.mean() if values.size else float("nan")
        return evaluation.stats, per_category

    return run


@pytest.fixture
def tiny_json(tmp_path):
    """A COCO file of two images and two classes, small enough to reckon by hand."""
    content = {
        "images": [{"id": 7, "height": 20, "width": 30}, {"id": 9, "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 11, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [2, 2, 10, 10], "area": 100, "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 11, "bbox": [5, 5, 8, 8], "area": 64, "iscrowd": 0},
        ],
    }
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(content))
    return path


def one_prediction(image_id, boxes, classes, scores=None, **fields):
    scores = torch.ones(len(boxes)) if scores is None else torch.tensor(scores)
    instances = Instances(
        (20, 30), pred_boxes=Boxes(boxes), scores=scores, pred_classes=torch.tensor(classes), **fields
    )
    return [{"image_id": image_id}], [{"instances": instances}]


@pytest.fixture
def predict():
    return one_prediction
