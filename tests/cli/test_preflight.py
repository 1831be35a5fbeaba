"""The check before iteration 0."""

import pytest
from omegaconf import OmegaConf
from torch import nn

from hookline.cli.errors import UsageError
from hookline.cli.preflight import check_classes, class_counts
from hookline.data import MetadataCatalog
from hookline.data.checks import DatasetCheckError


class Head(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes


class Loader:
    def __init__(self, records):
        self.records = records


@pytest.fixture
def cfg():
    name = "preflight_test"
    MetadataCatalog.get(name).set(thing_classes=["cat", "dog"])
    yield OmegaConf.create({"dataloader": {"train": {"dataset": {"names": name}}}})
    MetadataCatalog.remove(name)


def record(tmp_path, category=0, exists=True):
    file = tmp_path / "a.jpg"
    if exists:
        file.write_bytes(b"x")
    annotation = {"id": 7, "bbox": [0, 0, 4, 4], "bbox_mode": 1, "category_id": category, "iscrowd": 0}
    return {"file_name": str(file), "image_id": 3, "height": 8, "width": 8, "annotations": [annotation]}


def test_counts_are_found_through_wrappers():
    model = nn.Sequential()
    model.add_module("module", nn.Sequential(Head(5)))
    assert class_counts(model) == {"0": 5}


def test_a_fitting_model_and_data_set_pass(cfg, tmp_path):
    check_classes(cfg, nn.Sequential(Head(2)), Loader([record(tmp_path)]))


def test_a_part_whose_classes_share_everything_fits_any_data_set(cfg, tmp_path):
    heads = Head(2)
    heads.mask_head = Head(1)
    check_classes(cfg, nn.Sequential(heads), Loader([record(tmp_path)]))
    with pytest.raises(UsageError, match=r"num_classes=1, but"):
        check_classes(cfg, nn.Sequential(Head(1)), Loader([record(tmp_path)]))


def test_another_class_count_names_module_and_setting(cfg, tmp_path):
    with pytest.raises(UsageError, match=r"model\.0\.num_classes=80.*2 classes \(cat, dog\).*num_classes=2"):
        check_classes(cfg, nn.Sequential(Head(80)), Loader([record(tmp_path)]))


def test_a_category_out_of_range_names_file_and_annotation(cfg, tmp_path):
    with pytest.raises(DatasetCheckError, match=r"a\.jpg.*7"):
        check_classes(cfg, nn.Sequential(Head(2)), Loader([record(tmp_path, category=2)]))


def test_a_missing_image_is_named(cfg, tmp_path):
    with pytest.raises(DatasetCheckError, match=r"a\.jpg"):
        check_classes(cfg, nn.Sequential(Head(2)), Loader([record(tmp_path, exists=False)]))


def test_a_loader_without_records_is_compared_by_what_the_recipe_tells(cfg):
    with pytest.raises(UsageError, match="2 classes"):
        check_classes(cfg, nn.Sequential(Head(80)), iter([]))
    cfg.dataloader.train.dataset = None
    check_classes(cfg, nn.Sequential(Head(80)), iter([]))
    with pytest.raises(UsageError, match=r"model\.0\.num_classes=80, but dataloader\.evaluator evaluates 1 classes"):
        check_classes(cfg, nn.Sequential(Head(80)), iter([]), evaluated={"": ["cat"]})


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["cat"], r"dataloader\.evaluator\.val has 1 classes \(cat\), but the training data has 2 \(cat, dog\)"),
        (["dog", "cat"], r"class 0 is 'dog', but 'cat' in the training data, which is number 1 there"),
        (["bird", "cat"], r"class 0 is 'bird', but 'cat'"),
    ],
)
def test_an_evaluator_of_other_classes_is_refused(cfg, tmp_path, classes, words):
    with pytest.raises(UsageError, match=words):
        check_classes(cfg, nn.Sequential(Head(2)), Loader([record(tmp_path)]), evaluated={"val": classes})


def test_what_may_be_right_is_not_refused(cfg, tmp_path, caplog):
    def check(model, classes):
        check_classes(cfg, model, Loader([record(tmp_path)]), evaluated=classes)

    check(nn.Sequential(Head(2)), {})  # evaluators without classes
    check(nn.Sequential(Head(2)), {"": ["cat", "dog"]})
    check(nn.Linear(1, 1), {"": ["cat", "dog"]})
    check(nn.Sequential(Head(2)), {"": ["cat", "hound"]})
    assert "class 1 is called 'hound', but 'dog'" in caplog.text
    model = nn.Module()
    model.backbone, model.sem_seg_head, model.roi_heads = Head(1000), Head(54), Head(2)
    model.roi_heads.embedding = Head(0)
    check(model, {"": ["cat", "dog"]})


def test_the_validation_records_are_checked_before_training_too(cfg, tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    tests = {"val": Loader([record(bad, category=5)])}
    with pytest.raises(DatasetCheckError, match=r"bad/a\.jpg.*category id 5"):
        check_classes(cfg, nn.Sequential(Head(2)), Loader([record(good)]), tests)
