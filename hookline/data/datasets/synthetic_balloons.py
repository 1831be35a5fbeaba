"""Generate a balloon data set: pictures like photographs with VIA annotations, so that a demo needs no download.

Laid out like the real set: ``<root>/balloon/{train,val}`` with JPEGs and ``via_region_data.json`` (VIA 1.x).
"""

import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hookline.data.datasets.synthetic_scene import Scene, draw_scene
from hookline.io import atomic_open

_logger = logging.getLogger(__name__)

_VERSION = 1  # of the drawing: another number means other pictures from the same seed
_FOLDER = "balloon"
_ANNOTATIONS = "via_region_data.json"
_PARAMETERS = "generator.json"  # tells our own sets from downloaded ones; written last
_TEMPORARY = f".{_FOLDER}.generating."
_ABANDONED_S = 6 * 3600


def generate_balloons(root: str | os.PathLike[str], num_train: int = 200, num_val: int = 50, seed: int = 0) -> Path:
    """Draw a data set of balloons, unless the same one is there already.

    The same arguments give the same files, byte for byte (with the same versions of numpy and Pillow); picture number n
    of a split does not depend on how many there are. The set appears under its name only when it is complete. A
    generated set that is damaged or was drawn with other arguments is replaced; a folder that was not generated never
    is.

    Args:
        root: the data root; the set becomes its folder ``balloon``.
        num_train: pictures in ``train``, at least 1.
        num_val: pictures in ``val``, at least 1.
        seed: any integer that is not negative.

    Returns:
        The set's folder.

    Raises:
        ValueError: if an argument is out of its range.
        FileExistsError: if ``<root>/balloon`` holds something that this function did not make.
    """
    parameters = {"version": _VERSION, "num_train": num_train, "num_val": num_val, "seed": seed}
    for name, least in (("num_train", 1), ("num_val", 1), ("seed", 0)):
        if parameters[name] < least:
            raise ValueError(f"{name} is at least {least}, got {parameters[name]!r}")
    target = Path(root) / _FOLDER
    if _is_complete(target, parameters):
        _logger.info("the generated balloons in %s are complete and are used again", target)
        return target
    if target.exists() and not (target / _PARAMETERS).is_file():
        raise FileExistsError(
            f"{target} is there but was not generated (it has no {_PARAMETERS}); it is left untouched: "
            "choose another root, or move that folder away"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target.parent)
    _logger.info("drawing %d + %d pictures of balloons into %s", num_train, num_val, target)
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=target.parent) as folder:
        made = Path(folder) / _FOLDER
        for number, (split, num_images) in enumerate((("train", num_train), ("val", num_val))):
            _write_split(made / split, num_images, (seed, number))
        _write_json(made / _PARAMETERS, parameters)
        _move_into_place(made, target, Path(folder) / "old", parameters)
    return target


def _write_split(folder: Path, num_images: int, seed: tuple[int, int]) -> None:
    folder.mkdir(parents=True)
    annotations = {}
    for number in range(num_images):
        rng = np.random.default_rng([*seed, number])
        scene = draw_scene(rng)
        jpeg = _encode(scene, quality=int(rng.integers(70, 96)))
        name = f"{hashlib.sha1(jpeg).hexdigest()[:10]}_{number:05d}.jpg"
        (folder / name).write_bytes(jpeg)
        annotations[f"{name}{len(jpeg)}"] = _via_entry(name, len(jpeg), scene)
    _write_json(folder / _ANNOTATIONS, annotations)


def _encode(scene: Scene, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _via_entry(name: str, num_bytes: int, scene: Scene) -> dict[str, Any]:
    """Return a picture's entry of VIA 1.x, which numbers regions by strings and repeats a polygon's first point."""
    regions = {}
    for number, polygon in enumerate(scene.polygons):
        closed = np.concatenate([polygon, polygon[:1]])
        shape = {"name": "polygon", "all_points_x": closed[:, 0].tolist(), "all_points_y": closed[:, 1].tolist()}
        regions[str(number)] = {"shape_attributes": shape, "region_attributes": {}}
    return {
        "fileref": "",
        "size": num_bytes,
        "filename": name,
        "base64_img_data": "",
        "file_attributes": {},
        "regions": regions,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, separators=(",", ":"))


def _is_complete(target: Path, parameters: dict[str, int]) -> bool:
    """Tell whether a set with these parameters is there and every picture has the size that was noted."""
    try:
        if json.loads((target / _PARAMETERS).read_text("utf-8")) != parameters:
            return False
        for split in ("train", "val"):
            entries = json.loads((target / split / _ANNOTATIONS).read_text("utf-8")).values()
            if len(entries) != parameters[f"num_{split}"]:
                return False
            if any((target / split / entry["filename"]).stat().st_size != entry["size"] for entry in entries):
                return False
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, KeyError):
        return False
    return True


def _move_into_place(made: Path, target: Path, aside: Path, parameters: dict[str, int]) -> None:
    """Rename the finished set; what another process put there meanwhile is as good if it has the same parameters.

    Raises:
        OSError: if the set cannot be renamed; an older one stays.
    """
    if target.exists():
        target.rename(aside)
    try:
        made.rename(target)
    except OSError:
        if _is_complete(target, parameters):
            return
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise


def _remove_leftovers(root: Path) -> None:
    """Remove what killed generators left; one that still draws is never that old."""
    for folder in root.glob(f"{_TEMPORARY}*"):
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(folder, ignore_errors=True)
