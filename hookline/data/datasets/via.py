"""VIA JSON (VGG Image Annotator 1.x and 2.x, exports and project files) to records.

Source: https://www.robots.ox.ac.uk/~vgg/software/via/
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from hookline.data.catalog import DatasetCatalog, MetadataCatalog, Record, nearest
from hookline.data.datasets.paths import join_root, require_file
from hookline.data.datasets.reading import AnnotationFileError, read_json
from hookline.io import PathManager
from hookline.structures import BoxMode

ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 mean that the picture is shown on its side
CORNERS = 72  # of the polygon that stands for a circle: its area is 0.13 % smaller


class _Region(NamedTuple):
    """A region and where it stands, for messages."""

    place: str
    shape: dict[str, Any]
    attributes: dict[str, Any]


def load_via_json(
    json_file: str | Path,
    image_root: str | Path,
    *,
    thing_classes: Sequence[str] | None = None,
    class_attribute: str | None = None,
    dataset_name: str | None = None,
) -> list[Record]:
    """Read a VIA file into records, in the order of the file; images without regions are kept.

    VIA does not note image sizes, so the header of each image is read: height and width are those of the picture as it
    is shown (EXIF orientation applied), which is what was annotated. Rectangles, circles and ellipses become polygons.

    Args:
        json_file: export of annotations or saved project.
        image_root: the folder of the images.
        thing_classes: the class names. One name without ``class_attribute`` is the class of every region.
        class_attribute: the region attribute that holds the class; needed where there are several classes, unless the
            file knows one attribute only. Without ``thing_classes`` its options, or else its values in order of the
            alphabet, are the classes.
        dataset_name: fills this name's metadata with ``thing_classes``.

    Returns:
        Records with ``file_name, height, width, image_id`` (counted from 0), ``annotations``; an annotation has ``id``
        (counted from 1 through the file), ``bbox`` (XYXY), ``bbox_mode, category_id, iscrowd, segmentation`` (one
        polygon). An AnnotationFileError says what in the file cannot be used and names the image and the region; a
        file that is not there is a FileNotFoundError.
    """
    what = "annotations" if dataset_name is None else f"annotations of {dataset_name!r}"
    records, classes = load_via(
        json_file, image_root, thing_classes=thing_classes, class_attribute=class_attribute, what=what
    )
    if dataset_name is not None:
        MetadataCatalog.get(dataset_name).set(thing_classes=classes)
    return records


def load_via(
    json_file: str | Path,
    image_root: str | Path,
    *,
    thing_classes: Sequence[str] | None = None,
    class_attribute: str | None = None,
    what: str = "annotations",
) -> tuple[list[Record], list[str]]:
    """Read a VIA file; returns the records and the class names. See `load_via_json`.

    Raises:
        AnnotationFileError: if the file is not such a file; names the image and the region.
    """
    content = read_json(json_file, what)
    try:
        images, options = _open(content)
        regions = [list(_regions(image)) for image in images]
        attribute, classes = _classes([r for of in regions for r in of], thing_classes, class_attribute, options)
        records = [_record(number, image, image_root, json_file) for number, image in enumerate(images)]
        numbers = itertools.count(1)
        for record, of_image in zip(records, regions, strict=True):
            record["annotations"] = [_annotation(next(numbers), r, attribute, classes) for r in of_image]
    except AnnotationFileError as error:
        raise AnnotationFileError(f"{json_file}: {error}") from None
    return records, classes


def register_via_instances(
    name: str,
    json_file: str | Path,
    image_root: str | Path,
    thing_classes: Sequence[str],
    class_attribute: str | None = None,
) -> None:
    """Register a data set in VIA's format under a name.

    Args:
        name: how recipes refer to it.
        json_file: export of annotations or saved project.
        image_root: the folder of the images.
        thing_classes: the class names; one name is the class of every region.
        class_attribute: the region attribute that holds the class, where there are several.
    """
    classes = list(thing_classes)

    def load() -> list[Record]:
        return load_via_json(
            json_file, image_root, thing_classes=classes, class_attribute=class_attribute, dataset_name=name
        )

    DatasetCatalog.register(name, load)
    entry = MetadataCatalog.get(name)
    entry.set(thing_classes=classes, json_file=str(json_file), image_root=str(image_root), evaluator_type="coco")


def displayed_size(path: str) -> tuple[int, int]:
    """Read (height, width) in pixels of an image as it is shown, from its header only.

    Raises:
        AnnotationFileError: if it is no image.
    """
    try:
        with PathManager.open(path, "rb") as file, Image.open(file) as image:
            width, height = image.size
            on_its_side = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise AnnotationFileError(f"image {path} cannot be read: {error}") from error
    return (width, height) if on_its_side else (height, width)


def _open(content: Any) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    # Return the images, and the options of each region attribute (projects of VIA 2 know them).
    if not isinstance(content, dict):
        raise AnnotationFileError(f"not VIA: the top level is a {type(content).__name__}, an object was expected")
    entries = content.get("_via_img_metadata", content)
    options = {}
    for name, attribute in content.get("_via_attributes", {}).get("region", {}).items():
        options[name] = list(attribute.get("options") or {})
    for key, entry in entries.items():
        if not isinstance(entry, dict) or "filename" not in entry or "regions" not in entry:
            hint = "; this looks like a COCO file" if "images" in entries and "categories" in entries else ""
            raise AnnotationFileError(f"not VIA: {key!r} has no 'filename' and 'regions'{hint}")
    return list(entries.values()), options


def _regions(image: dict[str, Any]) -> Iterator[_Region]:
    # Go through an image's regions; VIA 1 has them in an object, VIA 2 in a list.
    regions = image["regions"]
    for key, region in regions.items() if isinstance(regions, dict) else enumerate(regions):
        place = f"image {image['filename']!r}, region {key}"
        shape = region.get("shape_attributes")
        if not isinstance(shape, dict) or "name" not in shape:
            raise AnnotationFileError(f"{place}: no shape_attributes with a name")
        attributes = region.get("region_attributes")
        yield _Region(place, shape, attributes if isinstance(attributes, dict) else {})


def _classes(
    regions: list[_Region], classes: Sequence[str] | None, attribute: str | None, options: dict[str, list[str]]
) -> tuple[str | None, list[str]]:
    # Decide which attribute holds the class (``None``: there is one class) and what the classes are.
    known = sorted({key for region in regions for key in region.attributes} | set(options))
    if attribute is not None and attribute not in known:
        raise AnnotationFileError(f"no region has the attribute {attribute!r}{nearest(attribute, known)}")
    if classes is not None:
        if not classes:
            raise AnnotationFileError("thing_classes is empty")
        if attribute is None and len(classes) > 1:
            if len(known) != 1:
                raise AnnotationFileError(
                    f"{len(classes)} classes need class_attribute, one of the region attributes {known}"
                )
            attribute = known[0]
        return attribute, list(classes)
    if attribute is None:
        if known:
            raise AnnotationFileError(
                f"regions have the attributes {known}: say which one is the class (class_attribute), or the single "
                "class of all regions (thing_classes)"
            )
        return None, ["object"]
    values = {_class_name(region, attribute) for region in regions}
    return attribute, options.get(attribute) or sorted(values)


def _class_name(region: _Region, attribute: str) -> str:
    # Read the class of a region; a checkbox attribute must have exactly one box ticked.
    value = region.attributes.get(attribute)
    if isinstance(value, dict):
        ticked = [name for name, on in value.items() if on]
        if len(ticked) != 1:
            raise AnnotationFileError(f"{region.place}: {attribute!r} must tick one class, got {ticked}")
        return ticked[0]
    if value is None or str(value).strip() == "":
        raise AnnotationFileError(f"{region.place}: no {attribute!r}, so it has no class")
    return str(value).strip()


def _record(number: int, image: dict[str, Any], image_root: str | Path, json_file: str | Path) -> Record:
    path = require_file(join_root(str(image_root), image["filename"]), f"image {image['filename']!r} of {json_file}")
    height, width = displayed_size(path)
    return {"file_name": path, "height": height, "width": width, "image_id": number, "annotations": []}


def _annotation(number: int, region: _Region, attribute: str | None, classes: list[str]) -> dict[str, Any]:
    category = 0
    if attribute is not None:
        name = _class_name(region, attribute)
        if name not in classes:
            raise AnnotationFileError(f"{region.place}: class {name!r} is not in the list{nearest(name, classes)}")
        category = classes.index(name)
    xs, ys = _outline(region)
    return {
        "id": number,
        "bbox": [min(xs), min(ys), max(xs), max(ys)],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category,
        "iscrowd": 0,
        "segmentation": [[v for point in zip(xs, ys, strict=True) for v in point]],
    }


def _outline(region: _Region) -> tuple[list[float], list[float]]:
    # Return the x and y of a region's corners in pixels.
    shape = region.shape
    try:
        match shape["name"]:
            case "polygon":
                xs, ys = list(map(float, shape["all_points_x"])), list(map(float, shape["all_points_y"]))
            case "rect":
                x, y, w, h = (float(shape[k]) for k in ("x", "y", "width", "height"))
                xs, ys = [x, x + w, x + w, x], [y, y, y + h, y + h]
            case "circle":
                xs, ys = _ellipse(shape["cx"], shape["cy"], shape["r"], shape["r"], 0)
            case "ellipse":
                # VIA 1 has no theta; VIA 2 gives it in radians, clockwise as the image's y axis points down.
                xs, ys = _ellipse(shape["cx"], shape["cy"], shape["rx"], shape["ry"], shape.get("theta", 0))
            case other:
                raise AnnotationFileError(
                    f"{region.place}: a {other} encloses no area; polygon, rect, circle and ellipse are understood"
                )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, AnnotationFileError):
            raise
        raise AnnotationFileError(
            f"{region.place}: {shape['name']} is not whole: {type(error).__name__} {error}"
        ) from None
    if len(xs) != len(ys) or len(xs) < 3:
        raise AnnotationFileError(f"{region.place}: {len(xs)} x and {len(ys)} y make no polygon")
    if (xs[0], ys[0]) == (xs[-1], ys[-1]) and len(xs) > 3:
        xs, ys = xs[:-1], ys[:-1]  # VIA closes polygons by repeating the first point
    return xs, ys


def _ellipse(cx: float, cy: float, rx: float, ry: float, theta: float) -> tuple[list[float], list[float]]:
    angles = [2 * math.pi * k / CORNERS for k in range(CORNERS)]
    points = [(rx * math.cos(a), ry * math.sin(a)) for a in angles]
    xs = [cx + x * math.cos(theta) - y * math.sin(theta) for x, y in points]
    ys = [cy + x * math.sin(theta) + y * math.cos(theta) for x, y in points]
    return xs, ys
