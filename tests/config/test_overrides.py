import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from hookline.config import ConfigError, LazyConfig
from hookline.config.origin import get_origin


@pytest.fixture
def cfg(cascade):
    return LazyConfig.load(cascade)


def apply(cfg, *texts):
    return LazyConfig.apply_overrides(cfg, list(texts))


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.max_iter=10", "train.max_iter", 10),
        ("train.seed=null", "train.seed", None),
        ("train.output_dir='a, b=c'", "train.output_dir", "a, b=c"),
        ("train.output_dir=/data/run 1/x-y_z", "train.output_dir", "/data/run 1/x-y_z"),
        ("train.output_dir=2024", "train.output_dir", "2024"),
        ("train.output_dir=007", "train.output_dir", "007"),
        ("train.output_dir=", "train.output_dir", ""),
        ("train.max_iter=1e3", "train.max_iter", 1000.0),
        ("train.max_iter=${train.seed}", "train.max_iter", 7),
        ("model.pixel_mean=[1,2.5,'x',null,{a: [b]}]", "model.pixel_mean", [1, 2.5, "x", None, {"a": ["b"]}]),
        ("model.roi_heads.box_heads.1.in_channels=9", "model.roi_heads.box_heads[1].in_channels", 9),
        ("model.roi_heads.box_heads[2].in_channels=9", "model.roi_heads.box_heads[2].in_channels", 9),
        ("model.pixel_mean[0]=9", "model.pixel_mean[0]", 9),
        ("model.backbone.in_features=[p2]", "model.backbone.in_features", ["p2"]),
        ("model.backbone.bottom_up.stages=null", "model.backbone.bottom_up.stages", None),
        ("train.ddp={broadcast: false}", "train.ddp", {"broadcast": False}),
        ("train={ddp: {broadcast: false}, seed: 1}", "train.seed", 1),
        ("optimizer.nesterov=true", "optimizer.nesterov", True),  # an argument of SGD that the recipe leaves out
        (
            "model.backbone.top_block={_target_: config_parts.Stem}",
            "model.backbone.top_block._target_",
            "config_parts.Stem",
        ),
        ("+train.new=3", "train.new", 3),
        ("+train.deep.er.est=[1]", "train.deep.er.est", [1]),
        ("+note=hello", "note", "hello"),
        ("++train.seed=4", "train.seed", 4),
        ("++train.other=4", "train.other", 4),
        ("+model.pixel_mean.3=5", "model.pixel_mean", [1.0, 2.0, 3.0, 5]),
        ("~train.seed", "train.seed", None),
        ("~train.seed=7", "train.seed", None),
    ],
)
def test_overrides(cfg, text, key, value):
    assert apply(cfg, text) is cfg
    assert OmegaConf.select(cfg, key) == value


def test_a_call_is_replaced_whole_and_a_dictionary_key_by_key(cfg):
    apply(cfg, "model.backbone={_target_: config_parts.Stem, in_channels: 9}", "train.ddp={broadcast: false}")
    assert cfg.model.backbone == {"_target_": "config_parts.Stem", "in_channels": 9}
    assert get_origin(cfg.model.backbone).startswith("made by the override 'model.backbone={")
    assert get_origin(cfg.train.ddp).endswith("train.py:6")


def test_in_order(cfg):
    apply(cfg, "+train.a=1", "train.a=2", "~train.a", "+train.a=3")
    assert cfg.train.a == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train.max_itr=5", ["no 'max_itr' in train (made at", "train.py:2", "'max_iter'", "+train.max_itr=..."]),
        ("max_iter=5", ["no 'max_iter' in the config", "did you mean 'train.max_iter'"]),
        ("trian.seed=5", ["no 'trian' in the config", "did you mean 'train'"]),
        ("model.backbone.nrom=GN", ["no 'nrom' in model.backbone (made at", "mask_rcnn.py:7", "'norm'"]),
        ("model.roi_heads.box_heads[1].in_chanels=1", ["model.roi_heads.box_heads[1] (", "'in_channels'"]),
        (
            "model.roi_heads.box_heads[7].in_channels=1",
            ["model.roi_heads.box_heads", "has 3 items, so there is no '7'"],
        ),
        ("model.pixel_mean.x=1", ["has 3 items, so there is no 'x'"]),
        ("+model.pixel_mean.9=1", ["has 3 items, so there is no '9'"]),
        ("train={sed: 3}", ["no 'sed' in train", "'seed'"]),
        ("train=3", ["train (made at", "holds the keys output_dir, max_iter, seed, ddp"]),
        ("train.max_iter=abc", ["train.max_iter", "is 45000 and wants a number, not 'abc'"]),
        ("train.ddp.broadcast=maybe", ["wants true or false, not 'maybe'"]),
        ("train.seed.x=1", ["train.seed", "is 7 and has no keys"]),
        ("model.backbone.in_features.0=x", ["stands for ${.bottom_up.out_features}"]),
        ("+train.seed=1", ["train.seed", "there already"]),
        ("~train.sed", ["no 'sed' in train", "'seed'"]),
        ("~train.seed=8", ["train.seed", "is 7, not 8"]),
        ("train.seed", ["no '='"]),
        ("=3", ["no plain key"]),
        ("train@x=3", ["no plain key"]),
        ("train.seed=(1,2)", ["not understood", "lists as [1,2]"]),
        ("train.seed=[1,2", ["not understood"]),
        ("train.seed=1,2", ["several values"]),
        ("train.seed=choice(1,2)", ["several values"]),
        ("train.output_dir=${bad", ["not understood"]),
    ],
)
def test_refusals(cfg, text, words):
    before = LazyConfig.to_yaml(cfg)
    with pytest.raises(ConfigError) as caught:
        apply(cfg, text)
    assert f"override {text!r}" in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert LazyConfig.to_yaml(cfg) == before


def test_one_text_is_no_list(cfg):
    with pytest.raises(ConfigError, match="list of texts"):
        LazyConfig.apply_overrides(cfg, "train.seed=1")


def test_keys_that_are_numbers():
    cfg = OmegaConf.create({"names": {0: "a"}})
    assert apply(cfg, "names.0=b").names[0] == "b"


def test_read_only_configs_are_refused_by_name(cfg):
    OmegaConf.set_readonly(cfg.train, True)
    with pytest.raises(ConfigError, match=r"override 'train\.seed=1'"):
        apply(cfg, "train.seed=1")


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="$\\\0"), max_size=20))
def test_quoted_texts_arrive_as_they_are(text):
    quoted = "'" + text.replace("'", "\\'") + "'"
    assert apply(DictConfig({"a": "x"}), f"a={quoted}").a == text
