import math

import pytest
import torch

from hookline.modeling.box_regression import Box2BoxTransform, box_regression_loss


def _boxes(count):
    corner = torch.rand(count, 2) * 100
    return torch.cat([corner, corner + torch.rand(count, 2) * 80 + 2], 1)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (1, 2, 3, 4)])
def test_decoding_undoes_encoding(weights):
    transform = Box2BoxTransform(weights)
    source, target = _boxes(50), _boxes(50)
    deltas = transform.get_deltas(source, target)
    torch.testing.assert_close(transform.apply_deltas(deltas, source), target, rtol=1e-4, atol=1e-3)


def test_encoding_equals_the_papers_formula():
    source, target = _boxes(5), _boxes(5)
    got = Box2BoxTransform((1, 2, 3, 4)).get_deltas(source, target)
    for (a0, b0, a1, b1), (c0, d0, c1, d1), row in zip(source.tolist(), target.tolist(), got, strict=True):
        w, h = a1 - a0, b1 - b0
        want = [
            ((c0 + c1) / 2 - (a0 + a1) / 2) / w,
            2 * ((d0 + d1) / 2 - (b0 + b1) / 2) / h,
            3 * math.log((c1 - c0) / w),
            4 * math.log((d1 - d0) / h),
        ]
        torch.testing.assert_close(row, torch.tensor(want), rtol=1e-4, atol=1e-4)


def test_several_sets_of_offsets_are_decoded_as_one_by_one():
    transform = Box2BoxTransform((10, 10, 5, 5))
    source, deltas = _boxes(4), torch.randn(4, 12)
    got = transform.apply_deltas(deltas, source)
    want = torch.cat([transform.apply_deltas(part, source) for part in deltas.split(4, 1)], 1)
    torch.testing.assert_close(got, want)


def test_growth_is_clamped():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    grown = Box2BoxTransform((1, 1, 1, 1)).apply_deltas(torch.tensor([[0.0, 0.0, 100.0, 100.0]]), boxes)
    torch.testing.assert_close(grown[:, 2] - grown[:, 0], torch.tensor([10 * 1000 / 16]))


def test_half_precision_offsets_are_decoded_in_float32():
    out = Box2BoxTransform((1, 1, 1, 1)).apply_deltas(torch.zeros(3, 4, dtype=torch.bfloat16), _boxes(3))
    assert out.dtype == torch.float32


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 1, 0, 1), (1, 1, -1, 1)])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights="):
        Box2BoxTransform(weights)


def _naive_loss(kind, deltas, source, target, used, beta, transform):
    total = 0.0
    for n in range(len(deltas)):
        if not used[n]:
            continue
        if kind == "smooth_l1":
            for d in (deltas[n] - transform.get_deltas(source, target)[n]).abs().tolist():
                total += d - 0.5 * beta if d >= beta else 0.5 * d * d / beta
            continue
        p = transform.apply_deltas(deltas[n : n + 1], source[n : n + 1])[0].tolist()
        t = target[n].tolist()
        inter = max(min(p[2], t[2]) - max(p[0], t[0]), 0) * max(min(p[3], t[3]) - max(p[1], t[1]), 0)
        union = (p[2] - p[0]) * (p[3] - p[1]) + (t[2] - t[0]) * (t[3] - t[1]) - inter
        hull_w, hull_h = max(p[2], t[2]) - min(p[0], t[0]), max(p[3], t[3]) - min(p[1], t[1])
        if kind == "giou":
            total += 1 - inter / union + (hull_w * hull_h - union) / (hull_w * hull_h)
            continue
        apart = ((p[0] + p[2] - t[0] - t[2]) / 2) ** 2 + ((p[1] + p[3] - t[1] - t[3]) / 2) ** 2
        loss = 1 - inter / union + apart / (hull_w**2 + hull_h**2)
        if kind == "ciou":
            v = (
                4
                / math.pi**2
                * (math.atan((t[2] - t[0]) / (t[3] - t[1])) - math.atan((p[2] - p[0]) / (p[3] - p[1]))) ** 2
            )
            loss += v * v / (1 - inter / union + v + 1e-7)
        total += loss
    return total


@pytest.mark.parametrize(
    ("kind", "beta"), [("smooth_l1", 0.0), ("smooth_l1", 0.5), ("giou", 0), ("diou", 0), ("ciou", 0)]
)
def test_losses_equal_a_naive_loop(kind, beta):
    transform = Box2BoxTransform((10, 10, 5, 5))
    source, target, used = _boxes(30), _boxes(30), torch.rand(30) > 0.5
    deltas = (transform.get_deltas(source, target) + torch.randn(30, 4)).requires_grad_()
    got = box_regression_loss(
        deltas, source, target, used, box2box_transform=transform, box_reg_loss_type=kind, smooth_l1_beta=beta
    )
    want = _naive_loss(kind, deltas.detach(), source, target, used, beta, transform)
    assert got.item() == pytest.approx(want, rel=1e-4)
    got.backward()
    assert (deltas.grad[~used] == 0).all()
    assert (deltas.grad[used] != 0).any()


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_boxes_that_are_not_used_may_hold_anything(kind):
    target = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.nan] * 4])
    deltas = torch.randn(2, 4, requires_grad=True)
    loss = box_regression_loss(
        deltas, _boxes(2), target, torch.tensor([False, False]),
        box2box_transform=Box2BoxTransform((1, 1, 1, 1)), box_reg_loss_type=kind,
    )  # fmt: skip
    loss.backward()
    assert loss.item() == 0
    assert deltas.grad.abs().sum() == 0
