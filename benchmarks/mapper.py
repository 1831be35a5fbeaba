"""One-thread mapper: 640x480 JPEGs resized to a shorter edge of 800, seven polygon instances each, half mirrored.

The peer does the same with Pillow and one call per annotation, as mappers on Pillow do: a deep copy of the record,
decoding and resizing by Pillow, numpy for the layout, pycocotools for the masks.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from pycocotools import mask as coco_mask

import hookline.data.transforms as T
from benchmarks import measure, print_table
from hookline.data.mapper import DatasetMapper
from hookline.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks

NUM_IMAGES, NUM_INSTANCES, NUM_POINTS = 32, 7, 40
WIDTH, HEIGHT = 640, 480
SHORT_EDGE, MAX_SIZE = 800, 1333
ROUNDS = 4
GOALS = {"polygon": 250, "bitmask": 150}


def photographs() -> list[Image.Image]:
    """Return pictures of 640x480: real ones where the test data is, otherwise smoothed noise of all scales."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HOOKLINE_TEST_DATA", default)) / "tiny_coco"
    files = sorted(folder.rglob("*.jpg"))[:NUM_IMAGES]
    if files:
        return [ImageOps.fit(Image.open(file).convert("RGB"), (WIDTH, HEIGHT)) for file in files]
    return [_noise(np.random.default_rng(i)) for i in range(NUM_IMAGES)]


def _noise(random: np.random.Generator) -> Image.Image:
    """Add up noise whose strength grows with its scale, as in photographs."""
    picture = np.zeros((HEIGHT, WIDTH, 3))
    for level in range(1, 8):
        grid = random.normal(size=(HEIGHT >> (8 - level), WIDTH >> (8 - level), 3)).clip(-3, 3) * 40 + 128
        layer = Image.fromarray(grid.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        picture += (np.array(layer, dtype=float) - 128) / level
    return Image.fromarray((picture + 128).clip(0, 255).astype(np.uint8)).filter(ImageFilter.SHARPEN)


def make_records(folder: Path) -> list[dict[str, Any]]:
    """Write the pictures as JPEGs of quality 90 and return records with star-shaped polygons."""
    random = np.random.default_rng(0)
    records = []
    for number, picture in enumerate(photographs()):
        file = folder / f"{number}.jpg"
        picture.save(file, quality=90)
        annotations = [_annotation(random, number * NUM_INSTANCES + i) for i in range(NUM_INSTANCES)]
        size = {"height": HEIGHT, "width": WIDTH}
        records.append({"file_name": str(file), **size, "image_id": number, "annotations": annotations})
    return records


def _annotation(random: np.random.Generator, number: int) -> dict[str, Any]:
    radius = random.uniform(20, 120)
    center = random.uniform((radius, radius), (WIDTH - radius, HEIGHT - radius))
    angle = np.linspace(0, 2 * np.pi, NUM_POINTS, endpoint=False)
    reach = radius * random.uniform(0.6, 1.0, NUM_POINTS)[:, None]
    points = center + reach * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    return {
        "id": number,
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": number % 80,
        "segmentation": [points.reshape(-1).tolist()],
        "iscrowd": 0,
    }


def map_with_pillow(record: dict[str, Any], mask_format: str) -> dict[str, Any]:
    """Do what the mapper does, with Pillow and annotation by annotation."""
    record = copy.deepcopy(record)
    picture = ImageOps.exif_transpose(Image.open(record["file_name"])).convert("RGB")
    image = np.asarray(picture)[:, :, ::-1]
    height, width = T.ResizeShortestEdge.get_output_shape(*image.shape[:2], SHORT_EDGE, MAX_SIZE)
    scale = np.array([width / image.shape[1], height / image.shape[0]])
    image = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR))
    mirror = np.random.uniform() < 0.5
    if mirror:
        image = np.flip(image, axis=1)

    def move(points: np.ndarray) -> np.ndarray:
        points = points * scale
        if mirror:
            points[:, 0] = width - points[:, 0]
        return points

    record["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
    boxes, polygons = [], []
    for annotation in record.pop("annotations"):
        box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        corners = move(np.array(box).reshape(2, 2))
        boxes.append(np.concatenate((corners.min(axis=0), corners.max(axis=0))))
        polygons.append([move(np.array(p).reshape(-1, 2)).reshape(-1) for p in annotation["segmentation"]])
        annotation["bbox"], annotation["segmentation"] = boxes[-1], polygons[-1]
    instances = Instances((height, width), gt_boxes=Boxes(torch.tensor(np.stack(boxes), dtype=torch.float32)))
    if mask_format == "polygon":
        instances.gt_masks = PolygonMasks(polygons)
    else:
        codes = [coco_mask.merge(coco_mask.frPyObjects(p, height, width)) for p in polygons]
        masks = [torch.from_numpy(np.ascontiguousarray(coco_mask.decode(code).astype(bool))) for code in codes]
        instances.gt_masks = BitMasks(torch.stack(masks))
    record["instances"] = instances[instances.gt_boxes.nonempty() & instances.gt_masks.nonempty()]
    return record


def images_per_second(mappers: list[Callable[[dict[str, Any]], Any]], records: list[dict[str, Any]]) -> list[float]:
    """Return each one's best rate over passes through all records, taken in turns so that all see the same machine."""
    best = [float("inf")] * len(mappers)
    for _ in range(ROUNDS):
        for index, mapper in enumerate(mappers):
            np.random.seed(0)
            timing = measure(lambda run=mapper: [run(record)["image_id"] for record in records], min_time_s=0.5)
            best[index] = min(best[index], timing.best)
    return [len(records) / seconds for seconds in best]


def main() -> None:
    """Print images per second, Hookline beside the peer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    augmentations = [T.ResizeShortestEdge(SHORT_EDGE, MAX_SIZE, "choice"), T.RandomFlip()]
    try:
        with tempfile.TemporaryDirectory() as folder:
            records = make_records(Path(folder))
            rows = []
            for mask_format, goal in GOALS.items():
                mapper = DatasetMapper(
                    True,
                    augmentations=augmentations,
                    image_format="BGR",
                    use_instance_mask=True,
                    instance_mask_format=mask_format,
                )
                peer_mapper = partial(map_with_pillow, mask_format=mask_format)
                ours, peer = images_per_second([mapper, peer_mapper], records)
                rows.append((mask_format, ours, peer, ours / peer, goal))
    finally:
        torch.set_num_threads(threads)
    print_table(
        rows,
        ("masks", "hookline, images/s", "Pillow, images/s", "ratio", "goal, images/s"),
        f"one thread, {WIDTH}x{HEIGHT} JPEG to {SHORT_EDGE}, {NUM_INSTANCES} polygons of {NUM_POINTS} points",
    )


if __name__ == "__main__":
    main()
