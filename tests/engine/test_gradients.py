import pytest
import torch
from torch import nn

from hookline.engine import ClipGradNorm, ClipGradValue
from hookline.engine.gradients import build_clipper, unsynchronized


def parameters():
    values = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]
    values[0].grad = torch.tensor([3.0, 0.0, 0.0])
    values[1].grad = torch.tensor([[0.0, -4.0], [0.0, 0.0]])
    return values


def test_norm_of_all_together():
    p = parameters()
    norm = ClipGradNorm(1.0)(p)
    assert float(norm) == 5.0
    torch.testing.assert_close(p[0].grad, torch.tensor([0.6, 0.0, 0.0]))
    torch.testing.assert_close(p[1].grad[0, 1], torch.tensor(-0.8))


def test_small_gradients_stay():
    p = parameters()
    ClipGradNorm(100.0)(p)
    assert float(p[0].grad[0]) == 3.0


def test_largest_value_as_norm():
    p = parameters()
    assert float(ClipGradNorm(2.0, norm_type=float("inf"))(p)) == 4.0
    torch.testing.assert_close(p[0].grad[0], torch.tensor(1.5))


def test_norm_of_each_parameter():
    p = parameters()
    assert ClipGradNorm(2.0, per_parameter=True)(p) is None
    torch.testing.assert_close(p[0].grad[0], torch.tensor(2.0))
    torch.testing.assert_close(p[1].grad[0, 1], torch.tensor(-2.0))


def test_by_value():
    p = parameters()
    ClipGradValue(3.5)(p)
    assert float(p[0].grad[0]) == 3.0
    assert float(p[1].grad[0, 1]) == -3.5


def test_short_forms():
    assert build_clipper(None) is None
    assert build_clipper(2).max_norm == 2.0
    clip = ClipGradValue(1.0)
    assert build_clipper(clip) is clip


@pytest.mark.parametrize("bad", ["1.0", True, ClipGradNorm, [1.0]])
def test_refuses_what_cannot_clip(bad):
    with pytest.raises(TypeError, match="grad_clip"):
        build_clipper(bad)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf")])
def test_refuses_limits_without_meaning(bad):
    with pytest.raises(ValueError, match="positive"):
        ClipGradNorm(bad)
    with pytest.raises(ValueError, match="positive"):
        ClipGradValue(bad)


def test_unsynchronized_uses_the_wrapper():
    class Wrapper(nn.Module):
        def no_sync(self):
            return "context"

    assert unsynchronized(Wrapper()) == "context"
    with unsynchronized(nn.Linear(1, 1)):
        pass
