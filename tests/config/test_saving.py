import collections
import functools
import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

import config_parts as parts
from config_parts import Mode, Pair, Part, ResNet, Spec, Stem
from hookline.config import ConfigError, LazyConfig, instantiate
from hookline.config import LazyCall as L
from hookline.config.origin import get_origin


def through_yaml(cfg, folder):
    LazyConfig.save(cfg, folder / "run" / "config.yaml")
    return LazyConfig.load(folder / "run" / "config.yaml")


def through_python(cfg, folder):
    path = folder / "config.py"
    path.write_text(LazyConfig.to_py(cfg), "utf-8")
    return LazyConfig.load(path)


@pytest.fixture(params=[through_yaml, through_python])
def again(request, tmp_path):
    return lambda cfg: request.param(cfg, tmp_path)


def test_a_recipe_saved_and_loaded_builds_the_same(cascade, again):
    cfg = LazyConfig.load(cascade)
    loaded = again(cfg)
    assert instantiate(loaded.model) == instantiate(cfg.model)
    assert instantiate(loaded.dataloader) == instantiate(cfg.dataloader)
    assert OmegaConf.to_container(loaded.model.backbone, resolve=False)["in_features"] == "${.bottom_up.out_features}"
    assert LazyConfig.to_yaml(loaded) == LazyConfig.to_yaml(cfg)
    assert LazyConfig.to_py(loaded) == LazyConfig.to_py(cfg)
    loaded.train.seed = 1
    assert instantiate(loaded.dataloader.train).kwargs["seed"] == 1
    # A loaded config can be overridden like the recipe.
    LazyConfig.apply_overrides(loaded, ["model.backbone.top_block=x", "model.roi_heads.num_classes=3"])
    assert instantiate(loaded.model).kwargs["roi_heads"].kwargs["predictors"][0] == Stem(3, 10)


@pytest.mark.parametrize(
    "value",
    [
        Stem,
        Spec,
        dict,
        torch.nn.Linear,
        torch.float16,
        torch.relu,
        torch.nn.functional.relu,
        parts.scale,
        ResNet.make_default_stages,
        ResNet.of_depth,
        parts.Catalog.get,
        Mode.EXACT,
        collections.OrderedDict.fromkeys,
        Spec(channels=3),
        Pair(3),
        pathlib.Path("/a/b"),
        np.float64(0.5),
        np.int64(5),
        np.float32(0.25),
        float("inf"),
        b"bytes",
        1e-8,
        "1e-8",
        "inf",
        "-.NaN",
        "1:30",
        "0x1f",
        "2020-01-01",
        "gr\u00f6\u00dfe\u2028\x85",
        "yes",
        "",
        "a\n  b\\n'\"",
        r"\${not.an.interpolation}",
        None,
        [(1, 2), [Spec(height=1)]],
        {1: "a", 2.5: "b", "key with spaces": "d", "\u3038": 1},
        {"class": 1, "from": {"x-y": 2}},
    ],
    ids=repr,
)
def test_values_come_back(value, again):
    cfg = DictConfig({"node": L(Part)(value=value, many=[value, {"a": value}])}, flags={"allow_objects": True})
    built = instantiate(cfg).pop("node")
    loaded = instantiate(again(cfg).node)
    assert loaded == built
    assert type(loaded.kwargs["value"]) is (
        float
        if isinstance(value, np.floating)
        else int
        if isinstance(value, np.integer)
        else type(built.kwargs["value"])
    )


def test_partial_objects_come_back(again):
    partial = functools.partial(parts.scale, 3, factor=2)
    cfg = DictConfig(
        {"node": L(Part)(value=partial, deep=functools.partial(Part, size=(1, 2), kinds={Stem}, spec=Spec(1)))},
        flags={"allow_objects": True},
    )
    built = instantiate(again(cfg).node).kwargs
    assert built["value"]() == 6
    assert built["deep"]() == Part(size=(1, 2), kinds={Stem}, spec=Spec(1))


def test_schemas_come_back(again):
    cfg = OmegaConf.create({"node": Spec(channels=3), "many": {"a": [Spec()]}})
    assert instantiate(again(cfg)) == {"node": Spec(channels=3), "many": {"a": [Spec()]}}


def test_scalars_at_the_top(again):
    cfg = OmegaConf.create({"note": "hello", "node": {"a": "${note}"}, "missing": "???", "words": []})
    loaded = again(cfg)
    assert (loaded.note, loaded.node.a) == ("hello", "hello")
    assert OmegaConf.is_missing(loaded, "missing")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_characters="$?", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.from_regex("[a-z]{2,4}x", fullmatch=True), plain, max_size=3))
def test_any_plain_content_comes_back(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("plain")
    cfg = OmegaConf.create(content)
    assert instantiate(through_yaml(cfg, folder)) == content
    assert instantiate(through_python(cfg, folder)) == content


def test_what_cannot_be_saved_is_named_by_its_key(cascade, tmp_path):
    class Local:
        pass

    cfg = LazyConfig.load(cascade)
    cfg.model.roi_heads.loss = lambda x: x
    cfg.model.backbone.bottom_up.stem = L(Local)()
    cfg.model.backbone.norm = [1, torch.nn.Linear(1, 1)]
    cfg.train.live = {"deep": object()}
    cfg.train.generator = functools.partial(parts.scale, value=lambda: 1)
    target = tmp_path / "config.yaml"
    target.write_text("old: 1\n")
    with pytest.raises(ConfigError) as caught:
        LazyConfig.save(cfg, target)
    message = str(caught.value)
    for words in (
        "model.roi_heads.loss: a lambda has no name",
        "mask_rcnn.py:7",
        "model.backbone.bottom_up.stem._target_: ",
        "is defined inside a function",
        "model.backbone.norm[1]: a live object of type Linear",
        "train.live.deep: a live object of type object",
        "train.generator.value: a lambda",
    ):
        assert words in message
    assert target.read_text() == "old: 1\n"
    assert [f.name for f in tmp_path.iterdir() if f.name.endswith(".tmp")] == []


def test_objects_of_the_running_script_are_refused(monkeypatch):
    monkeypatch.setattr(parts.scale, "__module__", "__main__")
    with pytest.raises(ConfigError, match="defined in the script that runs"):
        LazyConfig.to_yaml(OmegaConf.create({"a": L(parts.scale)()}))


def test_the_saved_text_is_readable(cascade):
    cfg = LazyConfig.load(cascade)
    text = LazyConfig.to_yaml(cfg)
    assert "_target_: config_parts.CascadeHeads\n" in text
    assert "!!" not in text
    source = LazyConfig.to_py(cfg)
    assert '    backbone=L("config_parts.FPN")(\n' in source
    assert (
        'optimizer = L("torch.optim.SGD")(params=L("builtins.dict")(weight_decay_norm=0.0), lr=0.02, momentum=0.9)\n'
        in source
    )
    assert max(map(len, source.splitlines())) <= 120


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\nb: 2", ["config.yaml:2"]),
        (
            "a: 1\nb: !!python/object/apply:os.system ['echo unsafe']",
            ["config.yaml:2", "could not determine a constructor"],
        ),
        ("a: !!python/name:os.system ''", ["config.yaml:1", "could not determine a constructor"]),
        ("a: 1\na: 2", ["config.yaml:2", "duplicate key"]),
        ("- 1", ["holds no dictionary"]),
        ("just text", ["holds no dictionary"]),
        ("", ["holds no dictionary"]),
        ("a: ${b", ["config.yaml", "no saved config"]),
    ],
)
def test_bad_yaml_is_refused_with_file_and_line(write, text, words, capfd):
    path = write("config.yaml")
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        LazyConfig.load(path)
    for word in words:
        assert word in str(caught.value)
    assert capfd.readouterr().out == ""


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="no saved config"):
        LazyConfig.load(tmp_path / "config.yaml")


def test_nodes_of_a_saved_config_know_their_lines(write):
    path = write("config.yaml", "model:\n  head:\n    - _target_: config_parts.Stem\n      in_chanels: 3\n")
    cfg = LazyConfig.load(path)
    assert get_origin(cfg.model.head[0]) == f"{path}:3"
    with pytest.raises(ConfigError, match=r"model\.head\[0\] \(made at .*config\.yaml:3\).*'in_channels'"):
        instantiate(cfg.model)


@pytest.mark.parametrize("key", ["_hidden", "with space", "class", "L", "dict"])
def test_to_py_refuses_top_level_keys_that_are_no_names(key):
    with pytest.raises(ConfigError, match="cannot be the name of a node"):
        LazyConfig.to_py(OmegaConf.create({key: {"a": 1}}))
