import torch
from torchvision.ops import nms

from hookline.modeling.layers import batched_nms, cat, cross_entropy, nonzero_tuple


def test_cat_of_one_tensor_does_not_copy():
    x = torch.randn(3)
    assert cat([x]) is x
    assert cat([x, x]).shape == (6,)


def test_nonzero_tuple_takes_scalars_too():
    assert [index.tolist() for index in nonzero_tuple(torch.tensor([[0, 1], [1, 0]]))] == [[0, 1], [1, 0]]
    assert nonzero_tuple(torch.tensor(3))[0].tolist() == [0]


def test_cross_entropy_without_targets_is_a_connected_zero():
    logits = torch.randn(0, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None


def test_cross_entropy_is_computed_in_float32():
    logits = torch.randn(4, 3, dtype=torch.bfloat16)
    assert cross_entropy(logits, torch.tensor([0, 1, 2, 0])).dtype == torch.float32


def test_batched_nms_suppresses_within_groups_only():
    corner = torch.rand(200, 2) * 50
    boxes = torch.cat([corner, corner + torch.rand(200, 2) * 30 + 1], 1)
    scores, group = torch.rand(200), torch.randint(0, 4, (200,))
    want = torch.cat([(group == g).nonzero()[:, 0][nms(boxes[group == g], scores[group == g], 0.4)] for g in range(4)])
    want = want[scores[want].argsort(descending=True)]
    assert batched_nms(boxes, scores, group, 0.4).tolist() == want.tolist()
    assert batched_nms(boxes[:0], scores[:0], group[:0], 0.4).tolist() == []
