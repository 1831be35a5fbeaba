"""Evaluation on several processes: every sample once, and the numbers of one process to the last digit."""

import contextlib
import io
import json
import sys
from datetime import timedelta
from pathlib import Path

import cloudpickle
import pytest
import torch
from torch import nn

from hookline.engine.launch import launch
from hookline.structures import Boxes, Instances

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the ranks cannot import a test file by name

SIZE = (60, 80)
IMAGES = 11  # no multiple of the numbers of processes
CLASSES = ["a", "b", "c"]


def records():
    generator = torch.Generator().manual_seed(0)
    made = []
    for image_id in range(IMAGES):
        annotations = []
        for number in range(image_id % 4):  # the first has none
            x, y, w, h = (torch.rand(4, generator=generator) * 25 + 5).tolist()
            box = {"bbox": [x, y, w, h], "bbox_mode": 1, "category_id": number % 3, "iscrowd": 0}
            annotations.append({**box, "id": image_id * 10 + number})
        place = {"file_name": f"{image_id}.jpg", "image_id": image_id, "height": SIZE[0], "width": SIZE[1]}
        made.append({**place, "annotations": annotations})
    return made


class Guesser(nn.Module):
    """Finds what is there, shifted, and more, by rules that depend on the image alone; scores come in ties."""

    def forward(self, batch):
        return [{"instances": self.guess(sample)} for sample in batch]

    def guess(self, record):
        generator = torch.Generator().manual_seed(record["image_id"])
        true = torch.tensor([a["bbox"] for a in record["annotations"]], dtype=torch.float32).reshape(-1, 4)
        boxes = torch.cat(
            [true + torch.randn(true.shape, generator=generator), torch.rand(3, 4, generator=generator) * 30]
        )
        boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].clamp(min=1)
        classes = [a["category_id"] for a in record["annotations"]] + [0, 1, 2]
        found = Instances(SIZE)
        found.pred_boxes = Boxes(boxes)
        found.scores = (torch.rand(len(boxes), generator=generator) * 4).round() / 4
        found.pred_classes = torch.tensor(classes)
        return found


class Metadata:
    thing_classes = CLASSES

    def get(self, name, default=None):
        return getattr(self, name, default)


def evaluate(folder):
    from hookline.data import build_detection_test_loader
    from hookline.distributed import all_gather, get_rank, get_world_size
    from hookline.evaluation import COCOEvaluator, inference_on_dataset

    loader = build_detection_test_loader(records(), mapper=None, batch_size=2)
    seen = [sample["image_id"] for batch in loader for sample in batch]
    everybody = [image_id for part in all_gather(seen) for image_id in part]
    out = Path(folder) / str(get_world_size())
    evaluator = COCOEvaluator(records(), tasks=["bbox"], metadata=Metadata(), output_dir=out)
    results = inference_on_dataset(Guesser(), loader, evaluator)
    assert bool(results) == (get_rank() == 0)
    if get_rank() == 0:
        text = json.dumps({"results": results, "seen": everybody})
        (out / "all.json").write_text(text)


@pytest.mark.parametrize("processes", [2, pytest.param(13, marks=pytest.mark.slow)])
def test_the_numbers_are_those_of_one_process_to_the_last_digit(tmp_path, processes):
    for count in (1, processes):
        with contextlib.redirect_stderr(io.StringIO()):
            launch(
                evaluate,
                0,
                args=(str(tmp_path),),
                num_procs_per_machine=count,
                launcher="none",
                rendezvous_timeout=timedelta(seconds=120),
            )
    one, several = (json.loads((tmp_path / str(count) / "all.json").read_text()) for count in (1, processes))
    assert one["results"]["bbox"]["AP"] > 5
    assert json.dumps(several["results"]) == json.dumps(one["results"])
    assert several["seen"] == one["seen"] == list(range(IMAGES))
    files = [(tmp_path / str(count) / "coco_instances_results.json").read_bytes() for count in (1, processes)]
    assert files[0] == files[1]
