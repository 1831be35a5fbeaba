import pytest
import torch
from torchvision import ops

from hookline.structures import (
    Boxes,
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)


def random_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 100
    return Boxes(torch.cat([low, low + torch.rand(count, 2, generator=generator) * 60], dim=1))


def test_iou_equals_torchvisions():
    first, second = random_boxes(40, 0), random_boxes(70, 1)
    torch.testing.assert_close(pairwise_iou(first, second), ops.box_iou(first.tensor, second.tensor))


def test_a_box_overlaps_itself_whole():
    boxes = random_boxes(20, 2)
    torch.testing.assert_close(pairwise_iou(boxes, boxes).diagonal(), torch.ones(20))
    torch.testing.assert_close(matched_pairwise_iou(boxes, boxes), torch.ones(20))
    torch.testing.assert_close(pairwise_intersection(boxes, boxes).diagonal(), boxes.area())


def test_ioa_divides_by_the_second_box():
    small, large = Boxes([[0, 0, 2, 2]]), Boxes([[0, 0, 4, 4], [1, 1, 2, 2]])
    assert pairwise_ioa(small, large).tolist() == [[0.25, 1.0]]


def test_matched_is_the_diagonal_of_pairwise():
    first, second = random_boxes(30, 3), random_boxes(30, 4)
    torch.testing.assert_close(matched_pairwise_iou(first, second), pairwise_iou(first, second).diagonal())
    with pytest.raises(ValueError, match="got 30 and 29 boxes"):
        matched_pairwise_iou(first, second[:29])


def test_boxes_without_area_overlap_nothing():
    points = Boxes([[5, 5, 5, 5], [0, 0, 10, 10]])
    assert pairwise_iou(points, points).tolist() == [[0, 0], [0, 1]]
    assert pairwise_ioa(points, points).tolist() == [[0, 0], [0, 1]]
    assert matched_pairwise_iou(points, points).tolist() == [0, 1]


def test_empty_sets():
    assert pairwise_iou(Boxes([]), random_boxes(3, 0)).shape == (0, 3)
    assert pairwise_iou(random_boxes(3, 0), Boxes([])).shape == (3, 0)


def test_point_box_distance():
    distance = pairwise_point_box_distance(torch.tensor([[3.0, 4.0]]), Boxes([[0, 0, 10, 10], [4, 4, 5, 5]]))
    assert distance.tolist() == [[[3, 4, 7, 6], [-1, 0, 2, 1]]]
