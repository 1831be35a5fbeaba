import torch

from hookline.modeling.proposal_generator import add_ground_truth_to_proposals, find_top_rpn_proposals
from hookline.structures import Boxes, Instances


def test_only_the_best_of_each_level_enter_and_doubles_within_a_level_go():
    same = [[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30], [0, 20, 10, 30]]
    boxes = torch.tensor([same])
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    (own,) = find_top_rpn_proposals([boxes, boxes], [scores, scores - 0.05], [(40, 25)], 0.5, 3, 10, 0.0)
    # The last box is beyond pre_nms_topk, the second suppressed; levels do not suppress each other; boxes are clipped.
    torch.testing.assert_close(own.objectness_logits, torch.tensor([0.9, 0.85, 0.7, 0.65]))
    assert own.proposal_boxes.tensor[2].tolist() == [20, 20, 25, 30]


def test_ground_truths_join_the_proposals():
    target = Instances((40, 40), gt_boxes=Boxes(torch.tensor([[1.0, 2, 3, 4]])))
    scored = Instances((40, 40), proposal_boxes=Boxes(torch.rand(2, 4)), objectness_logits=torch.zeros(2))
    plain = Instances((40, 40), proposal_boxes=Boxes(torch.zeros(0, 4)))
    first, second = add_ground_truth_to_proposals([target, target], [scored, plain])
    assert first.proposal_boxes.tensor[2].tolist() == [1, 2, 3, 4]
    assert first.objectness_logits[2].sigmoid() > 0.999
    assert len(second) == 1
    assert not second.has("objectness_logits")
    assert len(scored) == 2
