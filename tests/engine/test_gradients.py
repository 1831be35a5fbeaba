import pytest
import torch
from torch import nn

from hookline.engine import ClipGradNorm, ClipGradValue
from hookline.engine.gradients import build_clipper, gradient_norm, unsynchronized
from hookline.engine.hooks import CallbackHook


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
    assert float(ClipGradNorm(2.0, per_parameter=True)(p)) == 5.0  # of all together, before clipping
    torch.testing.assert_close(p[0].grad[0], torch.tensor(2.0))
    torch.testing.assert_close(p[1].grad[0, 1], torch.tensor(-2.0))


def test_by_value():
    p = parameters()
    assert float(ClipGradValue(3.5)(p)) == 5.0
    assert float(p[0].grad[0]) == 3.0
    assert float(p[1].grad[0, 1]) == -3.5


@pytest.mark.parametrize(("norm_type", "norm"), [(2.0, 5.0), (1.0, 7.0), (float("inf"), 4.0)])
def test_an_infinite_limit_measures_only(norm_type, norm):
    p, clip = parameters(), ClipGradNorm(float("inf"), norm_type)
    assert float(clip(p)) == norm
    p[0].grad[0] = float("inf")  # an overflow in half precision must not become NaN
    clip(p)
    assert p[0].grad.tolist() == [float("inf"), 0.0, 0.0]
    assert p[1].grad.flatten().tolist() == [0.0, -4.0, 0.0, 0.0]


def test_the_norm_is_a_metric(make_trainer):
    norms = []
    note = CallbackHook(after_backward=lambda t: norms.append(gradient_norm([*t.model.parameters()]).item()))
    trainer = make_trainer([note], grad_clip=ClipGradNorm(float("inf")))
    trainer.train(0, 3)
    assert [value for value, _ in trainer.storage.history("grad_norm").values()] == norms
    assert min(norms) > 0


def test_short_forms():
    assert build_clipper(None) is None
    assert build_clipper(2).max_norm == 2.0
    clip = ClipGradValue(1.0)
    assert build_clipper(clip) is clip


@pytest.mark.parametrize("bad", ["1.0", True, ClipGradNorm, [1.0]])
def test_refuses_what_cannot_clip(bad):
    with pytest.raises(TypeError, match="grad_clip"):
        build_clipper(bad)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), "1", True])
def test_refuses_limits_without_meaning(bad):
    with pytest.raises(ValueError, match="max_norm must be a positive"):
        ClipGradNorm(bad)
    with pytest.raises(ValueError, match="norm_type must be a positive"):
        ClipGradNorm(1.0, bad)
    with pytest.raises(ValueError, match="clip_value must be a positive"):
        ClipGradValue(bad)


def test_refuses_other_settings_without_meaning():
    with pytest.raises(ValueError, match="clip_value must be finite"):
        ClipGradValue(float("inf"))
    with pytest.raises(ValueError, match="per_parameter must be true or false, got 1"):
        ClipGradNorm(1.0, per_parameter=1)


def test_unsynchronized_uses_the_wrapper():
    class Wrapper(nn.Module):
        def no_sync(self):
            return "context"

    assert unsynchronized(Wrapper()) == "context"
    with unsynchronized(nn.Linear(1, 1)):
        pass
