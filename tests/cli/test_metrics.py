"""Which metrics there will be, and which way is better."""

import pytest

from hookline.cli.errors import UsageError
from hookline.cli.metrics import MetricNames, guess_rule, rule_of

KNOWN = ["bbox/AP", "bbox/AP50", "bbox/AP-error", "segm/AP"]


GREATER = """bbox/AP bbox/AP50 segm/APs bbox/AR100 bbox/AR@100 bbox_mAP coco/bbox_mAP_50 bbox/AP-error keypoints/APm acc
val/top1_accuracy accuracy_top-1 mIoU sem_seg/mIoU IoU F1 val/f1_score mDice precision recall panoptic_seg/PQ NDS auc
PSNR ema/bbox/AP toy/score"""
LESS = """validation/total_loss validation/loss_rpn_cls loss totalLoss val/loss_iou val/iou_loss mae RMSE error top1_err
error_rate perplexity flow/EPE wer"""


@pytest.mark.parametrize("name", GREATER.split())
def test_greater_is_better(name):
    assert guess_rule(name) == "greater"


@pytest.mark.parametrize("name", LESS.split())
def test_less_is_better(name):
    assert guess_rule(name) == "less"


@pytest.mark.parametrize("name", ["toy/value", "x", "landscape", "lapse"])
def test_what_does_not_tell_is_asked_for(name):
    assert guess_rule(name) is None
    with pytest.raises(UsageError, match=rf"train\.key=null: .*{name!r}.*train\.key=greater or train\.key=less"):
        rule_of(name, None, "train.key")
    assert rule_of(name, "less", "train.key") == "less"


def test_a_metric_that_will_not_be_is_refused():
    names = MetricNames(KNOWN)
    names.check("segm/AP", "train.key")
    with pytest.raises(UsageError, match=r"train\.key='bbox/APP': no metric of this run; did you mean bbox/AP"):
        names.check("bbox/APP", "train.key")
    with pytest.raises(UsageError, match=r"There will be: bbox/AP, .*train\.validation_loss"):
        names.check("validation/total_loss", "train.key")
    with pytest.raises(UsageError, match="and 5 more"):
        MetricNames([f"m{k}" for k in range(25)]).check("n", "train.key")


def test_validation_losses_are_metrics_too():
    names = MetricNames(KNOWN, with_validation=True)
    names.check("validation/total_loss", "train.key")
    names.check("validation/loss_mask", "train.key")  # only the model knows
    for wrong in ("validation/totl_loss", "validation_loss"):
        with pytest.raises(UsageError, match="did you mean validation/total_loss"):
            names.check(wrong, "train.key")


def test_what_an_evaluator_does_not_tell_cannot_be_refused():
    names = MetricNames(KNOWN, ["Own"])
    names.check("own/anything", "train.key")
    with pytest.raises(UsageError, match=r"train\.key='auto': Own does not list its metrics; name one"):
        names.primary("train.key")


def test_the_primary_metric():
    assert MetricNames(KNOWN, with_validation=True).primary("train.key") == "bbox/AP"
    assert MetricNames([], with_validation=True).primary("train.key") == "validation/total_loss"
    with pytest.raises(UsageError, match="evaluates nothing"):
        MetricNames([]).primary("train.key")
