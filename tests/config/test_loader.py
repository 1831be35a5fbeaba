import builtins
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import pytest
from omegaconf import DictConfig

from hookline.config import ConfigError, LazyConfig, RecipeImportError, instantiate

ORIGINAL_IMPORT = builtins.__import__


@pytest.fixture(autouse=True)
def hook_is_undone():
    yield
    assert builtins.__import__ is ORIGINAL_IMPORT


def test_detectron2_style_recipe(cascade):
    cfg = LazyConfig.load(cascade)
    assert set(cfg) == {"dataloader", "model", "train", "optimizer"}
    assert cfg.train.max_iter == 45000
    assert cfg.train.ddp.broadcast is True
    assert cfg.model.roi_heads.predictors[1].in_channels == 1
    assert "box_head" not in cfg.model.roi_heads
    assert cfg.dataloader.evaluator.dataset_name == "things_val"
    assert cfg.dataloader.train.seed == 7
    assert cfg.model.pixel_mean == [1.0, 2.0, 3.0]


def test_each_import_is_a_copy(cascade, write):
    plain = write("things/plain.py", "from ..common.models.mask_rcnn import model\nfrom ..common.train import train")
    changed = write("things/b.py", "from .plain import model, train\ntrain.seed = 1\nmodel.roi_heads.num_classes = 3")
    both = write("things/c.py", "from .b import train as changed\nfrom .plain import train\nfrom .plain import model")
    before = LazyConfig.load(plain)
    assert LazyConfig.load(changed).train.seed == 1
    cfg = LazyConfig.load(both)
    assert (cfg.changed.seed, cfg.train.seed, cfg.model.roi_heads.num_classes) == (1, 7, 80)
    assert LazyConfig.load(plain) == before


def test_import_of_sibling_modules_and_packages(write):
    write("pkg/__init__.py", "base = dict(a=1)\nlimit = 5")
    write("pkg/part.py", "node = dict(b=2)\ndef double(x): return 2 * x")
    recipe = write(
        "main.py",
        "from .pkg import base, limit, part\nfrom . import pkg as p\nnode = part.node\nnode.c = part.double(limit)",
    )
    with pytest.raises(RecipeImportError, match=r"from \. import pkg"):
        LazyConfig.load(recipe)
    recipe.write_text(recipe.read_text().replace("from . import pkg as p\n", ""))
    assert LazyConfig.load(recipe) == {"base": {"a": 1}, "node": {"b": 2, "c": 10}}


def test_absolute_imports_are_ordinary_but_nodes_are_copied(write, monkeypatch, tmp_path):
    write("shared_nodes.py", "from omegaconf import OmegaConf\nnode = OmegaConf.create({'a': 1})\nother = 3")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = write("r.py", "from shared_nodes import node, other\nimport os.path as p\nnode.a = other")
    assert LazyConfig.load(recipe).node.a == 3
    assert sys.modules.pop("shared_nodes").node.a == 1


def test_what_belongs_to_the_config(write):
    recipe = write("r.py", "_hidden = dict()\nnumber = 3\nwords = ['a']\nnode = dict(x=1)\ndef f(): pass\nimport os")
    assert LazyConfig.load(recipe) == {"words": ["a"], "node": {"x": 1}}
    recipe = write("s.py", "__all__ = ['number']\nnumber = 3\nnode = dict(x=1)")
    assert LazyConfig.load(recipe) == {"number": 3}
    write("s.py", "__all__ = ['nubmer']\nnumber = 3")
    with pytest.raises(ConfigError, match=r"s\.py: __all__ names 'nubmer'.*did you mean 'number'"):
        LazyConfig.load(recipe)


def test_keys(cascade):
    model, train = LazyConfig.load(cascade, ("model", "train"))
    assert isinstance(model, DictConfig)
    assert train.seed == 7
    # A node given alone remains part of its config.
    assert instantiate(LazyConfig.load(cascade, "dataloader").train).kwargs["seed"] == 7
    with pytest.raises(ConfigError, match="has no 'modle'; did you mean 'model'"):
        LazyConfig.load(cascade, "modle")


def test_load_rel_and_sources(cascade, write, tmp_path):
    recipe = write(
        "things/rel.py",
        "from hookline.config import LazyConfig\ntrain = LazyConfig.load_rel('../common/train.py', 'train')",
    )
    assert LazyConfig.load(recipe).train.seed == 7
    sources = LazyConfig.sources(LazyConfig.load(cascade))
    assert sources[0] == str(cascade)
    assert set(sources[1:]) == {
        str(tmp_path / "common" / f) for f in ("train.py", "data/things.py", "data/constants.py", "models/mask_rcnn.py")
    }
    with pytest.raises(ConfigError, match="use load"):
        exec("LazyConfig.load_rel('x.py')", {"LazyConfig": LazyConfig})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("from .trian import train", ["no ", "trian.py", "did you mean 'train'", "main.py:1"]),
        ("\nfrom .train import trian", ["train.py has no 'trian'", "did you mean 'train'", "main.py:2"]),
        (f"from {'.' * 40}train import x", ["not so many folders", "main.py:1"]),
        ("from .train import *", ["recipes import by name", "main.py:1"]),
        ("from .broken import x", ["broken.py:2", "ZeroDivisionError: division by zero", "in ", "main.py:1"]),
        ("from .circle import x", ["circle", "main.py -> ", "circle.py:1"]),
        ("from .bad_syntax import x", ["bad_syntax.py:2: this recipe is no valid Python", "main.py:1"]),
        ("return 3", ["main.py:1", "outside function"]),
        ("import torhc", ["no module 'torhc'", "did you mean 'torch'", "main.py:1"]),
        ("from hookline.confg import x", ["no module 'hookline.confg'", "did you mean 'config'", "main.py:1"]),
        ("from hookline.config import LazyCal", ["'hookline.config' has no 'LazyCal'", "'LazyCall'", "main.py:1"]),
        ("\n\nfrom hookline.config import LazyCall as L\nx = L(3)(a=1)", ["main.py:4", "needs a callable"]),
        ("x = {(1, 2): 3}", ["main.py", "'x' cannot be a config node", "tuple"]),
        ("a\0b", ["main.py", "no valid Python"]),
    ],
)
def test_refusals_name_file_line_and_near_name(write, text, words):
    write("train.py", "train = dict(a=1)")
    write("broken.py", "\nx = 1 / 0")
    write("circle.py", "from .main import x")
    write("bad_syntax.py", "\nx = = 3")
    with pytest.raises(ConfigError) as caught:
        LazyConfig.load(write("main.py", text))
    for word in words:
        assert word in str(caught.value)


def test_missing_files_and_wrong_suffixes(write):
    recipe = write("mask_rcnn.py")
    with pytest.raises(ConfigError, match=r"no file .*maskrcnn.py; did you mean 'mask_rcnn.py'"):
        LazyConfig.load(recipe.with_name("maskrcnn.py"))
    with pytest.raises(ConfigError, match=r"ends in .py"):
        LazyConfig.load(write("a.json"))


def test_recipe_may_go_on_without_an_import(write):
    recipe = write("r.py", "try:\n    from .local import node\nexcept ImportError:\n    node = dict(a=1)")
    assert LazyConfig.load(recipe) == {"node": {"a": 1}}


def test_the_hook_exists_for_recipe_code_only(write):
    recipe = write(
        "r.py",
        """
        import builtins
        node = dict(seen=builtins.__import__.__module__)
        def late():
            from .other import node
            return node.a
        """,
    )
    write("other.py", "node = dict(a=5)")
    assert LazyConfig.load(recipe).node.seen == "builtins"
    assert LazyConfig.load(recipe, "late")() == 5


def test_threads_load_at_once(cascade, write):
    broken = write("broken.py", "from .nothing import x")

    def load(index):
        if index % 3 == 0:
            with pytest.raises(ConfigError):
                LazyConfig.load(broken)
            return None
        return LazyConfig.load(cascade).model.backbone.norm

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(load, range(24))) == {None, "GN"}


def test_functions_of_a_recipe_build_and_travel_but_are_not_saved(write):
    recipe = write("r.py", "from hookline.config import LazyCall as L\ndef make(a): return [a]\nnode = L(make)(a=1)\n")
    cfg = LazyConfig.load(recipe)
    assert instantiate(cfg.node) == [1]
    assert instantiate(cloudpickle.loads(cloudpickle.dumps(cfg)).node) == [1]
    with pytest.raises(ConfigError, match=r"node\._target_: make is defined in a recipe.*r\.py:3"):
        LazyConfig.to_yaml(cfg)


def test_origins_of_plain_dictionaries(cascade, write):
    from hookline.config.origin import get_origin

    cfg = LazyConfig.load(cascade)
    assert get_origin(cfg.train).endswith("common/train.py:2")
    assert get_origin(cfg.train.ddp).endswith("common/train.py:6")
    assert get_origin(cfg.model.backbone).endswith("common/models/mask_rcnn.py:7")
    assert get_origin(cfg.model.roi_heads.box_heads[0]).endswith("things/cascade.py:12")


def test_importing_the_package_is_light():
    code = "import sys, hookline.config; print(sorted({'torch', 'hydra', 'numpy', 'cloudpickle'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
