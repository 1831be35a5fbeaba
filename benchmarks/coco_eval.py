"""COCO box evaluation: 5,000 images x 100 detections, from the predictions to the twelve numbers.

Loading the ground truth is not counted for anybody. pycocotools takes most of a minute.
"""

import contextlib
import copy
import importlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import measure, print_table
from hookline.evaluation.coco_evaluation import CocoSettings, evaluate_detections
from hookline.evaluation.coco_metrics import average_precision, precision_tables, recall_metrics
from hookline.evaluation.ground_truth import GroundTruth, load_ground_truth
from hookline.evaluation.predictions import Detections, ImagePredictions
from hookline.evaluation.results_file import detections_from_results

__all__ = ["main"]

IMAGES, OBJECTS, DETECTIONS, CATEGORIES = 5000, 7, 100, 80
GOAL_S = 0.3
LIMITS = (1, 10, 100)


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    """Return float32 (count, 4) boxes (x, y, width, height) of all three area ranges."""
    sides = np.exp(generator.uniform(1.5, 5.5, (count, 2)))
    return np.concatenate([generator.uniform(0, 400, (count, 2)), sides], axis=1).astype(np.float32)


def make_ground_truth(generator: np.random.Generator) -> dict[str, Any]:
    """Return a COCO file's content with the proportions of val2017."""
    boxes = random_boxes(generator, IMAGES * OBJECTS).astype(np.float64)
    categories = generator.integers(1, CATEGORIES + 1, len(boxes)).tolist()
    crowds = (generator.random(len(boxes)) < 0.02).astype(int).tolist()
    annotations = [
        {"id": k + 1, "image_id": k // OBJECTS + 1, "category_id": categories[k], "bbox": box, "area": box[2] * box[3]}
        for k, box in enumerate(boxes.tolist())
    ]
    for annotation, crowd in zip(annotations, crowds, strict=True):
        annotation["iscrowd"] = crowd
    return {
        "info": {},
        "images": [{"id": k + 1, "height": 640, "width": 640} for k in range(IMAGES)],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(CATEGORIES)],
    }


def make_predictions(generator: np.random.Generator, content: dict[str, Any]) -> list[ImagePredictions]:
    """Return per image 30 detections near the objects and 70 anywhere."""
    objects = np.array([row["bbox"] for row in content["annotations"]], dtype=np.float32).reshape(IMAGES, OBJECTS, 4)
    classes = np.array([row["category_id"] - 1 for row in content["annotations"]]).reshape(IMAGES, OBJECTS)
    predictions = []
    for k in range(IMAGES):
        boxes, labels = random_boxes(generator, DETECTIONS), generator.integers(0, CATEGORIES, DETECTIONS)
        which = generator.integers(0, OBJECTS, 30)
        boxes[:30] = objects[k, which] + generator.normal(0, 3, (30, 4)).astype(np.float32)
        boxes[:, 2:] = np.abs(boxes[:, 2:])
        labels[:30] = classes[k, which]
        scores = generator.random(DETECTIONS, dtype=np.float32)
        predictions.append(ImagePredictions(k + 1, boxes, scores, labels, None, None))
    return predictions


def twelve_numbers(ground_truth: GroundTruth, detections: Detections) -> list[float]:
    """Return COCO's summary by Hookline, as fractions."""
    tables = precision_tables("bbox", ground_truth, detections, max_dets=LIMITS)
    return [value / 100 for value in [*average_precision("bbox", tables).values(), *recall_metrics(tables).values()]]


def peer(module: str, content: dict[str, Any], results: list[dict]) -> tuple[Callable[[], Any], list[float]] | None:
    """Return a run of an evaluator with pycocotools' interface, and the place of its numbers; None if not installed."""
    try:
        library = importlib.import_module(module)
        coco, evaluation = library.COCO, library.COCOeval if hasattr(library, "COCOeval") else None
        if evaluation is None:
            evaluation = importlib.import_module("pycocotools.cocoeval").COCOeval
    except ImportError:
        return None
    numbers: list[float] = []
    with contextlib.redirect_stdout(io.StringIO()):
        if module.startswith("pycocotools"):
            truth = coco()
            truth.dataset = copy.deepcopy(content)
            truth.createIndex()
        else:
            truth = coco(content)

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            # it writes into the results it is given
            run_ = evaluation(truth, truth.loadRes([dict(row) for row in results]), "bbox")
            run_.evaluate()
            run_.accumulate()
            run_.summarize()
        numbers[:] = [float(value) for value in run_.stats]

    return run, numbers


def main() -> None:
    """Print seconds and ratios; the peers' numbers must be ours."""
    generator = np.random.default_rng(0)
    content = make_ground_truth(generator)
    predictions = make_predictions(generator, content)
    ground_truth = load_ground_truth_of(content)
    category_ids = ground_truth.category_ids
    results = list(Detections.join(predictions, category_ids).results())
    ours = twelve_numbers(ground_truth, Detections.join(predictions, category_ids))

    own_runs = {
        "Hookline, from the evaluator's predictions": lambda: twelve_numbers(
            ground_truth, Detections.join(predictions, category_ids)
        ),
        "Hookline, the same with AP per category and tables": lambda: evaluate_detections(
            ground_truth, Detections.join(predictions, category_ids), CocoSettings()
        ),
        "Hookline, from 500,000 COCO result dicts": lambda: twelve_numbers(
            ground_truth, detections_from_results(results)
        ),
    }
    seconds = {name: measure(run, 2.0).best for name, run in own_runs.items()}
    base = next(iter(seconds.values()))
    rows = [(name, value, value / base, "") for name, value in seconds.items()]
    for module in ("hotcoco", "faster_coco_eval", "pycocotools.coco"):
        found = peer(module, content, results)
        if found is None:
            rows.append((f"{module} (not installed)", float("nan"), float("nan"), ""))
            continue
        run, numbers = found
        best = measure(run, 1.0, warmup=0, min_calls=1).best
        difference = max(abs(a - b) for a, b in zip(ours, numbers, strict=True))
        rows.append((f"{module}, from the same dicts", best, best / base, f"{difference:.1e}"))
    print_table(
        rows,
        ("COCO boxes", "s", "times the first", "largest difference of the 12 numbers"),
        f"COCO evaluation: {IMAGES:,} images x {DETECTIONS} boxes, goal {GOAL_S} s",
    )


def load_ground_truth_of(content: dict[str, Any]) -> GroundTruth:
    """Load the ground truth through a file, as a run does."""
    import json
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ground_truth.json"
        path.write_text(json.dumps(content))
        return load_ground_truth(path)


if __name__ == "__main__":
    main()
