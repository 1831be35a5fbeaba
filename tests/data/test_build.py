import pytest
import torch
from torch.utils.data import IterableDataset

from hookline.data import DatasetMapper
from hookline.data.build import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from hookline.data.catalog import DatasetCatalog, MetadataCatalog
from hookline.data.samplers import RepeatFactorTrainingSampler, TrainingSampler


def record(image_id, *annotations):
    return {
        "image_id": image_id,
        "file_name": f"{image_id}.jpg",
        "height": 4,
        "width": 5,
        "annotations": [*annotations],
    }


def thing(crowd=0, points=()):
    return {"category_id": 0, "iscrowd": crowd, "keypoints": [v for p in points for v in (1, 1, p)]}


RECORDS = [
    record(0, thing()),
    record(1),
    record(2, thing(crowd=1)),
    record(3, thing(points=(2, 1, 0)), thing(points=(1,))),
]


@pytest.fixture
def register():
    names = []

    def register(name, records, **metadata):
        DatasetCatalog.register(name, lambda: list(records))
        MetadataCatalog.get(name).set(**metadata)
        names.append(name)
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def ids(records):
    return [r["image_id"] for r in records]


def test_images_without_instances_are_left_out_for_training(register):
    register("build_test", RECORDS)
    assert ids(get_detection_dataset_dicts("build_test")) == [0, 3]
    assert ids(get_detection_dataset_dicts(["build_test"], filter_empty=False)) == [0, 1, 2, 3]
    assert ids(get_detection_dataset_dicts("build_test", min_keypoints=3)) == [3]


def test_records_of_another_task_are_kept(register):
    register("build_test", [{"image_id": 0, "sem_seg_file_name": "x.png"}])
    assert ids(get_detection_dataset_dicts("build_test")) == [0]


def test_several_sets_one_behind_the_other(register):
    names = [register("build_a", RECORDS, thing_classes=["x"]), register("build_b", RECORDS[:1], thing_classes=["x"])]
    assert ids(get_detection_dataset_dicts(names)) == [0, 3, 0]


def test_sets_with_other_classes_are_not_joined(register):
    names = [
        register("build_a", RECORDS, thing_classes=["x", "y"]),
        register("build_b", RECORDS, thing_classes=["x", "z"]),
    ]
    with pytest.raises(ValueError, match=r"'build_a' and 'build_b' .*: class 1 is 'y' in one and 'z' in the other"):
        get_detection_dataset_dicts(names)
    assert len(get_detection_dataset_dicts(names, check_consistency=False)) == 4


def test_an_empty_set_is_named_with_its_file(register):
    register("build_test", [], json_file="/some/file.json")
    with pytest.raises(ValueError, match=r"data set 'build_test' is empty: /some/file.json holds no image"):
        get_detection_dataset_dicts("build_test")


def test_a_set_of_which_nothing_is_left(register):
    register("build_test", RECORDS[1:3])
    with pytest.raises(ValueError, match=r"none of the 2 images of build_test has an annotation that is no crowd$"):
        get_detection_dataset_dicts("build_test")
    register("build_points", RECORDS)
    with pytest.raises(ValueError, match="and at least 9 labelled keypoints"):
        get_detection_dataset_dicts("build_points", min_keypoints=9)


def test_no_name_at_all():
    with pytest.raises(ValueError, match="no data set was named"):
        get_detection_dataset_dicts([])


def test_class_counts_are_logged(register, caplog):
    register("build_test", RECORDS, thing_classes=["balloon"])
    with caplog.at_level("INFO"):
        get_detection_dataset_dicts("build_test")
    assert "build_test: 2 images (2 without usable annotations left out)" in caplog.text
    assert "balloon" in caplog.text


def test_loaders_take_names(register):
    register("build_test", RECORDS)
    for dataset in ("build_test", ["build_test"]):
        train = build_detection_train_loader(dataset, mapper=None, total_batch_size=2)
        assert (len(train.dataset), train.records) == (2, train.dataset)
        assert len(build_detection_test_loader(dataset, mapper=None)) == 4


class Endless(IterableDataset):
    def __iter__(self):
        return iter(int, 1)


class Bare(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize(
    ("dataset", "options", "error", "words"),
    [
        ([], {}, ValueError, "the data set is empty"),
        (Endless(), {}, TypeError, "a Endless cannot be read by index"),
        (iter(RECORDS), {}, TypeError, "list_iterator cannot be read by index"),
        (Bare(), {}, TypeError, r"which Bare does not give: write a method image_sizes\(\)"),
        ([{"file_name": "x.jpg", "height": 3}], {}, ValueError, "needs the 'width' of each record; x.jpg has none"),
        (RECORDS, {"sampler": iter([1])}, TypeError, "sampler is a list_iterator; .* Give repeat_factors"),
    ],
)
def test_refusals(dataset, options, error, words):
    with pytest.raises(error, match=words):
        build_detection_train_loader(dataset, mapper=None, total_batch_size=2, **options)


def test_samplers_by_detectron2_s_names_are_understood():
    def first(**options):
        loader = build_detection_train_loader(RECORDS, mapper=None, total_batch_size=4, **options)
        return [i for k in range(3) for _, i in loader.plan(k)]

    assert first(sampler=TrainingSampler(4, shuffle=False)) == [0, 1, 2, 3] * 3
    factors = [1.0, 2.0, 1.0, 1.0]
    assert first(sampler=RepeatFactorTrainingSampler(factors)) == first(repeat_factors=factors) != first()


def test_a_bare_data_set_needs_no_sizes_without_grouping():
    loader = build_detection_train_loader(Bare(), mapper=None, total_batch_size=3, aspect_ratio_grouping=False)
    assert sorted(next(iter(loader))) == [0, 1, 2]
    assert loader.records is None


def test_real_images_through_the_real_mapper_are_bit_equal_with_any_workers(test_data, monkeypatch):
    from hookline.data import transforms as T

    monkeypatch.setenv("HOOKLINE_DATASETS", str(test_data))
    augmentations = [T.ResizeShortestEdge((100, 120), 200, "choice"), T.RandomFlip(), T.RandomBrightness(0.5, 1.5)]
    mapper = DatasetMapper(True, augmentations=augmentations, image_format="RGB", use_instance_mask=True)
    read = []
    for workers in (0, 2):
        loader = build_detection_train_loader("balloon_val", mapper=mapper, total_batch_size=3, num_workers=workers)
        loader.seek(2)
        iterator = iter(loader)
        read.append([sample for _ in range(3) for sample in next(iterator)])
        iterator.close()
    for a, b in zip(*read, strict=True):
        assert a["file_name"] == b["file_name"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
    assert len({sample["image"].shape for sample in read[0]}) > 1
