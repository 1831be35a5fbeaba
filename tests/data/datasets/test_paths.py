import pytest

from hookline.data.catalog import DatasetCatalog
from hookline.data.datasets import datasets_root
from hookline.data.datasets.paths import join_root, require_file


def test_the_root_is_asked_at_each_call(monkeypatch):
    monkeypatch.delenv("HOOKLINE_DATASETS", raising=False)
    assert str(datasets_root()) == "datasets"
    monkeypatch.setenv("HOOKLINE_DATASETS", "/some/where")
    assert str(datasets_root()) == "/some/where"
    monkeypatch.setenv("HOOKLINE_DATASETS", "")
    assert str(datasets_root()) == "datasets"


def test_a_missing_root_names_variable_and_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOOKLINE_DATASETS", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError) as caught:
        DatasetCatalog.get("balloon_train")
    text = str(caught.value)
    assert f"no file {tmp_path}/nowhere/balloon/train/via_region_data.json" in text
    assert f"there is no folder {tmp_path}/nowhere)" in text
    assert "$HOOKLINE_DATASETS is" in text


def test_a_root_that_is_not_set_is_explained(monkeypatch, tmp_path):
    monkeypatch.delenv("HOOKLINE_DATASETS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"not set, so data sets are looked for in {tmp_path}/datasets"):
        DatasetCatalog.get("coco_2017_val")


def test_what_is_there_is_returned(tmp_path):
    file = tmp_path / "x.json"
    file.write_text("{}")
    assert require_file(file, "annotations") == str(file)


def test_addresses_and_absolute_paths_are_not_joined():
    assert join_root("images", "a/b.jpg") == "images/a/b.jpg"
    assert join_root("images", "http://host/b.jpg") == "http://host/b.jpg"
    assert join_root("images", "/b.jpg") == "/b.jpg"
