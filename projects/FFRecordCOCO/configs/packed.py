"""Read ``$HOOKLINE_DATASETS/coco`` out of ``coco.ffr`` in that folder, whatever the recipe that imports this."""

from hookline.data.datasets.paths import datasets_root
from hookline.io.ffrecord import register_ffrecord_handler

register_ffrecord_handler(datasets_root() / "coco" / "coco.ffr", ffr_prefix="coco", local_prefix=datasets_root())
