"""`train.grad_clip` from a recipe to what clips."""

import math

import pytest
from omegaconf import OmegaConf

from hookline.cli.errors import UsageError
from hookline.cli.gradients import gradient_clipper
from hookline.engine import ClipGradNorm, ClipGradValue


def test_null_and_a_number():
    assert gradient_clipper(None) is None
    clip = gradient_clipper(0.1)
    assert (clip.max_norm, clip.norm_type, clip.per_parameter) == (0.1, 2.0, False)


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ({"max_norm": 0.5}, ClipGradNorm),
        ({"max_norm": 1, "norm_type": 1, "per_parameter": True}, ClipGradNorm),
        ({"max_norm": math.inf, "norm_type": math.inf}, ClipGradNorm),
        ({"clip_value": 1}, ClipGradValue),
    ],
)
def test_a_dict_says_how_to_clip(setting, kind):
    clip = gradient_clipper(OmegaConf.create(setting))
    assert isinstance(clip, kind)
    assert {key: getattr(clip, key) for key in setting} == setting


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"max_nrm": 1}, r"train\.grad_clip\.max_nrm; did you mean train\.grad_clip\.max_norm"),
        ({"max_norm": -1}, r"train\.grad_clip=.*max_norm must be a positive number, got -1"),
        ({"max_norm": 1, "norm_type": 0}, "norm_type must be a positive number, got 0"),
        ({"max_norm": 1, "per_parameter": 3}, "per_parameter must be true or false, got 3"),
        ({"clip_value": 1, "max_norm": 1}, "clip_value goes with none of"),
        ({"clip_value": math.nan}, "clip_value must be a positive number, got nan"),
        ({"norm_type": 2}, r"train\.grad_clip=.*'max_norm'.*expected null, a number"),
        ("abc", r"train\.grad_clip=abc: .* got 'abc'; expected null, a number"),
        (True, r"train\.grad_clip=True"),
    ],
)
def test_a_wrong_way_to_clip_is_named(setting, words):
    with pytest.raises(UsageError, match=words):
        gradient_clipper(OmegaConf.create(setting) if isinstance(setting, dict) else setting)
