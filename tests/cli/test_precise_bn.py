"""`train.precise_bn`."""

import pytest
from omegaconf import OmegaConf
from torch import nn

from hookline.cli.averages import build_averages
from hookline.cli.errors import UsageError
from hookline.cli.precise_bn import build_precise_bn, check_precise_bn
from hookline.engine.every import Every


def settings(value, **more):
    return OmegaConf.create({"train": {"precise_bn": value, "seed": 0, "ema": None, "swa": None, **more}})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, r"train\.precise_bn=True: expected null, or a dict"),
        ({"num_iters": 5}, r"did you mean train\.precise_bn\.num_iter"),
        ({"num_iter": 0}, r"train\.precise_bn\.num_iter=0"),
        ({"period": -1}, r"train\.precise_bn\.period=-1"),
        ({"period": "eval"}, r"train\.precise_bn\.period='eval'"),
    ],
)
def test_refusals(value, words):
    with pytest.raises(UsageError, match=words):
        check_precise_bn(settings(value))


def test_the_hook_of_a_setting():
    def build(value, eval_period=50, **more):
        cfg = settings(value, **more)
        check_precise_bn(cfg)
        averages = build_averages(cfg.train)
        return build_precise_bn(cfg.train, nn.BatchNorm1d(2), [], averages, eval_period)

    assert build(None) is None
    own, with_evaluation = build({"period": 7, "num_iter": 3}), build({}, ema={"decay": 0.5})
    assert (own._every, own._num_iter) == (Every(7), 3)
    assert (with_evaluation._every, with_evaluation._num_iter, len(with_evaluation._averages)) == (Every(50), 200, 1)
