import pytest
from omegaconf import OmegaConf

import config_parts as parts
from hookline.config import ConfigError, LazyConfig, check_call_arguments
from hookline.config import LazyCall as L
from hookline.config.arguments import accepted_names, argument_problems


def test_a_right_config_passes_and_nothing_is_called(cascade):
    cfg = LazyConfig.load(cascade)
    check_call_arguments(cfg, runtime={"optimizer": {"params"}})
    check_call_arguments(cfg, "model")
    check_call_arguments(OmegaConf.create({"a": L(parts.Broken)(size=1), "b": [L(parts.Broken)(size="${c}")], "c": 1}))
    check_call_arguments(cfg.model)
    check_call_arguments(3)


def test_all_problems_are_listed_once(cascade):
    cfg = LazyConfig.load(cascade)
    cfg.model.backbone.nrom = 1
    del cfg.model.pixel_mean
    cfg.dataloader.train.augmentations[0].in_chanels = 1
    cfg.dataloader.test.dataset._target_ = "config_parts.Headz"
    cfg.train.seed = "${.sed}"
    cfg.train.device = "???"
    with pytest.raises(ConfigError) as caught:
        check_call_arguments(cfg)
    lines = str(caught.value).splitlines()
    with pytest.raises(ConfigError, match=r"^dataloader\.test\.dataset [^\n]*$"):
        check_call_arguments(cfg, "dataloader.test")
    starts = [line.split(" ")[0].rstrip(":") for line in lines]
    assert sorted(starts) == sorted(
        [
            "dataloader.train.augmentations[0]",
            "dataloader.train.seed",
            "dataloader.test.dataset",
            "model.backbone",
            "model",
            "train.seed",
            "train.device",
        ]
    )


def test_run_time_arguments_may_be_missing():
    cfg = OmegaConf.create(
        {"loader": {"train": L(parts.FPN)(bottom_up=1, in_features="???"), "test": L(parts.scale)()}}
    )
    given = {"loader.train": ["in_features", "out_channels"], "loader.*": ["value"]}
    with pytest.raises(ConfigError, match=r"loader\.train .*FPN has no argument 'value'"):
        check_call_arguments(cfg, runtime=given)
    check_call_arguments(cfg, runtime={**given, "loader.*": [], "loader.t*t": ["value"]})
    with pytest.raises(ConfigError, match=r"loader\.test .*lacks the required argument 'value'"):
        check_call_arguments(cfg, runtime={"loader.train": ["in_features", "out_channels"]})


def test_partial_calls_may_lack_arguments():
    check_call_arguments(L(parts.scale)(_partial_=True, factor=2))
    with pytest.raises(ConfigError, match="no argument 'facto'"):
        check_call_arguments(L(parts.scale)(_partial_=True, facto=2))


def test_a_target_that_is_a_call_is_checked_itself():
    with pytest.raises(ConfigError, match="make_scaler has no argument 'fctor'"):
        check_call_arguments(L(L(parts.make_scaler)(fctor=5))(anything=2))


def takes_all_kinds(a, /, b, *rest, c, d=1, **others):
    return a, b, rest, c, d, others


@pytest.mark.parametrize(
    ("places", "names", "problem"),
    [
        (1, ["b", "c"], None),
        (5, ["c", "x"], None),
        (1, ["a", "b", "c"], None),
        (0, ["a", "b", "c"], "lacks the required argument 'a'"),
        (2, ["b", "c"], "gets the argument 'b' twice"),
        (0, [], "lacks the required arguments 'a', 'b', 'c'"),
    ],
)
def test_problems_agree_with_python(places, names, problem):
    told = argument_problems(takes_all_kinds, places, names)
    assert told == [] if problem is None else problem in told[0]
    try:
        takes_all_kinds(*range(places), **dict.fromkeys(names))
        assert not told
    except TypeError:
        assert told


def test_accepted_names():
    assert accepted_names(takes_all_kinds) == ["b", "c", "d"]
    assert accepted_names(parts.Stem) == ["in_channels", "out_channels"]
    assert accepted_names(dict) == []
