"""The data sets that Hookline knows by name; where they lie is asked when one is loaded.

COCO's category names and ids are facts of that data set: https://cocodataset.org.
"""

from collections.abc import Callable

from hookline.data.catalog import DatasetCatalog, MetadataCatalog, Record
from hookline.data.datasets.coco import load_coco_json
from hookline.data.datasets.paths import datasets_root
from hookline.data.datasets.via import load_via_json

_COCO_CLASSES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter "
    "bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee "
    "skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass "
    "cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch "
    "potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink "
    "refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
)
COCO_CLASSES = [name.replace("_", " ") for name in _COCO_CLASSES.split()]
_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_CATEGORY_IDS = [i for i in range(1, 91) if i not in _UNUSED_IDS]

_SIDED = ["eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
COCO_KEYPOINTS = ["nose", *(f"{side}_{part}" for part in _SIDED for side in ("left", "right"))]
COCO_KEYPOINT_FLIPS = [(f"left_{part}", f"right_{part}") for part in _SIDED]


def register_builtin() -> None:
    """Register the built-in names with what is known before anything is loaded."""
    for split in ("train", "val"):
        _register_balloon(split)
        _register_coco(f"coco_2017_{split}", f"instances_{split}2017.json", split)
        name = f"keypoints_coco_2017_{split}"
        _register_coco(name, f"person_keypoints_{split}2017.json", split)
        MetadataCatalog.get(name).set(keypoint_names=COCO_KEYPOINTS, keypoint_flip_map=COCO_KEYPOINT_FLIPS)


def _register_balloon(split: str) -> None:
    name = f"balloon_{split}"
    entry = MetadataCatalog.get(name).set(thing_classes=["balloon"], evaluator_type="coco")

    def load() -> list[Record]:
        folder = datasets_root() / "balloon" / split
        json_file = folder / "via_region_data.json"
        entry.replace(json_file=str(json_file), image_root=str(folder))
        return load_via_json(json_file, folder, thing_classes=["balloon"], dataset_name=name)

    DatasetCatalog.register(name, load)


def _register_coco(name: str, json_name: str, split: str) -> None:
    classes = ["person"] if name.startswith("keypoints") else COCO_CLASSES
    ids = {category: number for number, category in enumerate(COCO_CATEGORY_IDS[: len(classes)])}
    entry = MetadataCatalog.get(name)
    entry.set(thing_classes=list(classes), thing_dataset_id_to_contiguous_id=ids, evaluator_type="coco")
    DatasetCatalog.register(name, _coco_loader(name, json_name, split))


def _coco_loader(name: str, json_name: str, split: str) -> Callable[[], list[Record]]:
    def load() -> list[Record]:
        folder = datasets_root() / "coco"
        json_file, image_root = folder / "annotations" / json_name, folder / f"{split}2017"
        MetadataCatalog.get(name).replace(json_file=str(json_file), image_root=str(image_root))
        return load_coco_json(json_file, image_root, name)

    return load
