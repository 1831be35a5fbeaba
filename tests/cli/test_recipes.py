import pytest

from hookline.cli import recipes
from hookline.cli.recipes import find_recipe, packaged_folder, packaged_recipes
from hookline.config import ConfigError


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A folder of packaged recipes of our own, and an empty working folder."""
    for name in ("common/train.py", "balloon/__init__.py", "balloon/mask_rcnn_tiny.py", "coco/retinanet.py"):
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("train = dict(seed=1)\n")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(recipes.configs, "__path__", [str(tmp_path / "configs")])
    return tmp_path / "configs"


def test_packaged_recipes_by_name(packaged):
    assert packaged_recipes() == ["balloon/mask_rcnn_tiny.py", "coco/retinanet.py"]
    for name in ("balloon/mask_rcnn_tiny.py", "balloon/mask_rcnn_tiny"):
        assert find_recipe(name) == packaged / "balloon/mask_rcnn_tiny.py"


def test_paths_come_first(packaged, tmp_path):
    here = tmp_path / "work" / "balloon" / "mask_rcnn_tiny.py"
    here.parent.mkdir()
    here.write_text("")
    assert find_recipe("balloon/mask_rcnn_tiny") == here
    assert find_recipe(here) == here


def test_saved_configs(packaged, tmp_path):
    saved = tmp_path / "work" / "output" / "config.yaml"
    saved.parent.mkdir()
    saved.write_text("train: {seed: 1}\n")
    assert find_recipe("output/config.yaml") == find_recipe("output") == saved


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("balloon/maskrcnn_tiny.py", "did you mean 'balloon/mask_rcnn_tiny'"),
        ("mask_rcnn_tiny", "did you mean 'balloon/mask_rcnn_tiny"),
        ("something/else", "packaged recipes: balloon/mask_rcnn_tiny.py, coco/retinanet.py"),
        ("balloon", "no recipe 'balloon'"),
        ("", "no recipe ''"),
        (".", "no recipe"),
        ("notes.txt", "ends in .py"),
        ("exper", "did you mean 'expert.py'"),
    ],
)
def test_missing_recipes_name_near_ones(packaged, tmp_path, name, words):
    (tmp_path / "work" / "notes.txt").write_text("")
    (tmp_path / "work" / "expert.py").write_text("")
    with pytest.raises(ConfigError, match=words):
        find_recipe(name)


def test_the_installed_folder():
    assert (packaged_folder() / "__init__.py").is_file()
