import copy
import pickle

import numpy as np
import pytest

from hookline.data.catalog import DatasetCatalog, Metadata, MetadataCatalog, UnknownDatasetError


@pytest.fixture
def name():
    yield "catalog_test"
    if "catalog_test" in DatasetCatalog:
        DatasetCatalog.remove("catalog_test")
    if "catalog_test" in MetadataCatalog:
        MetadataCatalog.remove("catalog_test")


def test_a_registered_function_runs_at_every_get(name):
    calls = []
    DatasetCatalog.register(name, lambda: calls.append(1) or [{"image_id": len(calls)}])
    assert name in DatasetCatalog
    assert name in DatasetCatalog.list()
    assert not calls
    assert DatasetCatalog.get(name) == [{"image_id": 1}]
    assert DatasetCatalog.get(name) == [{"image_id": 2}]


def test_a_name_is_given_once(name):
    DatasetCatalog.register(name, list)
    with pytest.raises(ValueError, match="'catalog_test' is registered already"):
        DatasetCatalog.register(name, list)


def test_registering_records_instead_of_a_function_is_refused(name):
    with pytest.raises(TypeError, match="needs a function that returns the records, got list"):
        DatasetCatalog.register(name, [])


def test_an_unknown_name_proposes_the_nearest():
    with pytest.raises(UnknownDatasetError) as caught:
        DatasetCatalog.get("baloon_train")
    assert str(caught.value).startswith("data set 'baloon_train' is not registered; did you mean 'balloon_train'")
    assert isinstance(caught.value, KeyError)


def test_builtin_names_are_there():
    expected = {"balloon_train", "balloon_val", "coco_2017_train", "coco_2017_val", "keypoints_coco_2017_val"}
    assert expected <= set(DatasetCatalog)
    assert MetadataCatalog.get("balloon_val").thing_classes == ["balloon"]
    assert len(MetadataCatalog.get("coco_2017_train").thing_classes) == 80


def test_metadata_does_not_change_by_accident(name):
    entry = MetadataCatalog.get(name).set(thing_classes=["a"], colors=np.zeros(3))
    entry.set(thing_classes=["a"], colors=np.zeros(3))
    with pytest.raises(ValueError, match=r"'thing_classes' of data set 'catalog_test' is \['a'\].*become \['b'\]"):
        entry.thing_classes = ["b"]
    assert entry.replace(thing_classes=["b"]).thing_classes == ["b"]
    assert MetadataCatalog.get(name) is entry


def test_metadata_that_is_missing_proposes_the_nearest():
    entry = Metadata("mine", thing_classes=["a"])
    with pytest.raises(AttributeError, match=r"'mine' has no 'thing_class'; did you mean 'thing_classes'"):
        _ = entry.thing_class
    assert entry.get("thing_class", 3) == 3
    assert not hasattr(entry, "keypoint_names")


def test_metadata_copies_and_pickles():
    entry = Metadata("mine", thing_classes=["a"])
    for other in (copy.deepcopy(entry), pickle.loads(pickle.dumps(entry))):
        assert other.as_dict() == {"name": "mine", "thing_classes": ["a"]}
