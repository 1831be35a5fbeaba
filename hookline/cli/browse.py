"""``hookline browse``: look at a data set, or at what a recipe's augmentations make of it, before training on it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # --help shall not wait for torch
    from omegaconf import DictConfig

    from hookline.visualization import VisImage

__all__ = ["run"]

_SHEET_IMAGES = 24
_LONGEST_SIDE = 1600  # pixels; larger pictures are shrunk, smaller than 400 enlarged
_SHORTEST_SIDE = 400


def run(argv: list[str]) -> int:
    """Draw the ground truth of a data set into a folder.

    Args:
        argv: the arguments behind ``hookline browse``.

    Returns:
        The exit code: 0 done, 1 the data cannot be read, 2 a wrong call.
    """
    parser = _parser()
    options = parser.parse_intermixed_args(argv)
    names = [word for word in options.words if "=" not in word]
    overrides = [word for word in options.words if "=" in word]
    if len(names) > 1:
        parser.error(f"one data set at a time, got {', '.join(names)}")
    if not names and options.recipe is None:
        parser.error("say which data set to draw: its name, or a recipe that names it")
    if overrides and options.recipe is None:
        parser.error(f"{overrides[0]!r} changes a recipe: give it with --recipe")
    if options.num < 1:
        parser.error(f"--num is at least 1, got {options.num}")

    from hookline.cli.errors import report

    try:
        return _browse(names[0] if names else None, options.recipe, overrides, options.out, options.num)
    except Exception as error:
        return report(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hookline browse",
        description="Draw the ground truth of a registered data set, or with a recipe its augmented training samples.",
    )
    parser.add_argument("words", metavar="DATASET_NAME", nargs="*", help="a registered name, such as balloon_train")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the pictures go")
    parser.add_argument("--num", type=int, default=16, metavar="N", help="how many pictures (%(default)s)")
    parser.add_argument(
        "--recipe", metavar="RECIPE", help="draw what this recipe trains on; key=value behind it change the recipe"
    )
    return parser


def _browse(name: str | None, recipe: str | None, overrides: list[str], out: Path, num: int) -> int:
    from hookline.visualization import grid

    pictures = _ground_truth(name or "") if recipe is None else _samples(recipe, overrides, name)
    drawn: list[VisImage] = []
    total = 0
    for file_name, picture in islice(pictures, num):
        stem = re.sub(r"[^\w.-]+", "_", Path(file_name).stem)
        picture.save(out / f"{total:04d}_{stem}.jpg")
        total += 1
        if len(drawn) < _SHEET_IMAGES:
            drawn.append(picture)
    if not total:
        print("hookline browse: the data set is empty, nothing was drawn", file=sys.stderr)
        return 1
    grid(drawn, cell=(300, 400)).save(out / "sheet.jpg")
    print(f"{total} pictures and sheet.jpg are in {out}")
    return 0


def _ground_truth(name: str) -> Iterator[tuple[str, VisImage]]:
    """Draw the records of a registered data set.

    Raises:
        UsageError: if the name is not registered.
    """
    from hookline.cli.errors import UsageError
    from hookline.data import DatasetCatalog, MetadataCatalog, UnknownDatasetError
    from hookline.data.image_io import read_image
    from hookline.visualization import Visualizer

    try:
        records = DatasetCatalog.get(name)
    except UnknownDatasetError as error:
        raise UsageError(str(error)) from None
    for record in records:
        image = read_image(record["file_name"], "RGB")
        yield record["file_name"], Visualizer(image, MetadataCatalog.get(name), _scale(image)).draw_dataset_dict(record)


def _samples(recipe: str, overrides: list[str], name: str | None) -> Iterator[tuple[str, VisImage]]:
    """Draw the samples of a recipe's training loader, in the order of training.

    Raises:
        UsageError: if the recipe has no training data or the name is not registered.
    """
    from hookline.cli.errors import UsageError
    from hookline.cli.recipes import find_recipe
    from hookline.config import LazyConfig, instantiate
    from hookline.data import DatasetCatalog, UnknownDatasetError, get_detection_dataset_dicts
    from hookline.visualization import draw_sample

    cfg = LazyConfig.load(str(find_recipe(recipe)))
    cfg = LazyConfig.apply_overrides(cfg, overrides)
    node = cfg.get("dataloader", {}).get("train")
    if node is None:
        raise UsageError(f"the recipe {recipe} has no dataloader.train to draw")
    runtime: dict[str, Any] = {"num_workers": 0} if "num_workers" in node else {}
    if name is not None:
        try:
            DatasetCatalog.get(name)
        except UnknownDatasetError as error:
            raise UsageError(str(error)) from None
        runtime["dataset"] = get_detection_dataset_dicts(name)
    image_format = node.get("mapper", {}).get("image_format", "BGR")
    metadata = _metadata(cfg, name)
    for batch in instantiate(node, **runtime):
        for sample in batch:
            image = sample["image"].permute(1, 2, 0)
            yield sample.get("file_name", "sample"), draw_sample(sample, image_format, metadata, _scale(image))


def _metadata(cfg: DictConfig, name: str | None) -> Any:
    """Return what is known about the data set: by its name, or by the name in the recipe's ``dataset`` node."""
    from hookline.cli.preflight import training_metadata
    from hookline.data import MetadataCatalog

    return MetadataCatalog.get(name) if name is not None else training_metadata(cfg)


def _scale(image: Any) -> float:
    longest = max(image.shape[:2])
    return min(_LONGEST_SIDE / longest, max(_SHORTEST_SIDE / longest, 1.0))
