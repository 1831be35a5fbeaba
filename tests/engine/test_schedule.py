import math

import pytest
from fvcore.common.param_scheduler import CompositeParamScheduler

from hookline.engine.schedule import (
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    WarmupParamScheduler,
)

STEPS = [i / 1000 for i in range(1000)]


def reference(schedule, factor, length, method, rescale):
    """The composition by fvcore's own parts."""
    end = schedule(0.0 if rescale else length)
    start = factor * schedule(0.0)
    warmup = ConstantParamScheduler(start) if method == "constant" else LinearParamScheduler(start, end)
    return CompositeParamScheduler(
        [warmup, schedule], [length, 1 - length], ["rescaled", "rescaled" if rescale else "fixed"]
    )


@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize(
    "schedule",
    [CosineParamScheduler(1.0, 0.0), MultiStepParamScheduler([1, 0.1, 0.01], num_updates=9, milestones=[6, 8])],
)
def test_equals_fvcores_composition(method, rescale, schedule):
    ours = WarmupParamScheduler(schedule, 0.001, 0.1, method, rescale)
    theirs = reference(schedule, 0.001, 0.1, method, rescale)
    for where in STEPS:
        if abs(where - 0.1) > 2e-3:  # fvcore shifts the seam by its epsilon
            assert ours(where) == pytest.approx(theirs(where), abs=1e-5)


def test_formula():
    schedule = WarmupParamScheduler(CosineParamScheduler(2.0, 0.0), 0.25, 0.2)
    end = 1 + math.cos(math.pi * 0.2)
    assert schedule(0.0) == 0.5
    assert schedule(0.1) == pytest.approx((0.5 + end) / 2, abs=1e-12)
    for where in (0.2, 0.5, 0.999):
        assert schedule(where) == pytest.approx(1 + math.cos(math.pi * where), abs=1e-12)


def test_no_warmup_is_the_schedule():
    schedule = WarmupParamScheduler(CosineParamScheduler(1.0, 0.0), 0.001, 0.0)
    assert [schedule(w) for w in STEPS] == [CosineParamScheduler(1.0, 0.0)(w) for w in STEPS]


def test_warmup_all_the_way():
    schedule = WarmupParamScheduler(ConstantParamScheduler(1.0), 0.0, 1.0)
    assert schedule(0.5) == pytest.approx(0.5)


def test_any_function_of_progress():
    assert WarmupParamScheduler(lambda where: 1 - where, 0.5, 0.5)(0.75) == 0.25


def test_refusals():
    with pytest.raises(ValueError, match="expected linear"):
        WarmupParamScheduler(ConstantParamScheduler(1.0), 0.1, 0.1, "lineer")
    with pytest.raises(ValueError, match="1000"):
        WarmupParamScheduler(ConstantParamScheduler(1.0), 0.1, 1000)
