"""``hookline convert``: annotations from one format to another."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any


def run(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: the arguments behind ``hookline convert``.

    Returns:
        Exit code: 0 done, 1 the annotations cannot be converted, 2 the call is wrong.
    """
    try:
        args = _parser().parse_args(list(argv))
    except SystemExit as stop:  # argparse has said why, or has shown the help
        return stop.code if isinstance(stop.code, int) else 2
    try:
        counts = convert_via(args.source, args.output, args.images, args.classes, args.class_attribute)
    except (ValueError, OSError) as error:
        print(f"hookline convert: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: {counts}")
    return 0


def convert_via(
    source: str,
    output: str,
    images: str | None = None,
    classes: Sequence[str] | None = None,
    class_attribute: str | None = None,
) -> str:
    """Write the COCO form of a VIA file; the output appears whole or not at all.

    Args:
        source: VIA JSON, version 1 or 2.
        output: the COCO JSON to write.
        images: the folder of the images, whose sizes are needed; the source's folder if it is ``None``.
        classes: the class names.
        class_attribute: the region attribute that holds the class.

    Returns:
        What was converted, in words.
    """
    # Imported here: "hookline --help" must not wait for torch.
    from hookline.data.catalog import Metadata
    from hookline.data.datasets import convert_to_coco_dict
    from hookline.data.datasets.via import load_via
    from hookline.io import atomic_open

    folder = images or os.path.dirname(source) or "."
    records, names = load_via(source, folder, thing_classes=classes, class_attribute=class_attribute)
    metadata = Metadata(os.path.basename(source), thing_classes=names)
    content: dict[str, Any] = convert_to_coco_dict(records, metadata, image_root=folder)
    with atomic_open(output, "w", encoding="utf-8") as file:
        json.dump(content, file)
    return f"{len(content['images'])} images, {len(content['annotations'])} annotations, classes: {', '.join(names)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hookline convert", description="Convert annotations to COCO JSON.")
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    via = formats.add_parser("via", help="VGG Image Annotator (VIA) 1.x and 2.x, exports and project files")
    via.add_argument("source", metavar="SRC", help="the VIA JSON")
    via.add_argument("output", metavar="OUT.json", help="the COCO JSON to write")
    via.add_argument("--images", metavar="DIR", help="folder of the images (default: the folder of SRC)")
    via.add_argument(
        "--classes", type=_names, metavar="A,B", help="class names in order; a single one is the class of every region"
    )
    via.add_argument("--class-attribute", metavar="NAME", help="region attribute that holds the class")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("no class name given")
    return names
