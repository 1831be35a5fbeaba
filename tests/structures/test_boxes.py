import copy
import pickle

import pytest
import torch

from hookline.structures import Boxes


@pytest.fixture
def boxes():
    return Boxes([[0, 0, 10, 20], [5, 5, 5, 9], [-4, 2, 700, 500]])


def test_numbers_of_any_kind_become_float32(boxes):
    assert boxes.tensor.dtype == torch.float32
    assert Boxes(torch.zeros(2, 4, dtype=torch.float64)).tensor.dtype == torch.float32


def test_no_boxes_have_four_columns():
    assert Boxes([]).tensor.shape == (0, 4)
    assert Boxes(torch.zeros(0, 80, 4)).tensor.shape == (0, 4)
    assert len(Boxes([])) == 0
    assert Boxes([]).area().shape == (0,)


def test_area_centers_nonempty(boxes):
    assert boxes.area().tolist() == [200, 0, 704 * 498]
    assert boxes.get_centers().tolist() == [[5, 10], [5, 7], [348, 251]]
    assert boxes.nonempty().tolist() == [True, False, True]
    assert boxes.nonempty(threshold=10).tolist() == [False, False, True]


def test_clip_keeps_boxes_in_the_image(boxes):
    boxes.clip((480, 640))
    assert boxes.tensor[2].tolist() == [0, 2, 640, 480]
    assert boxes.inside_box((481, 641)).all()


def test_inside_box_allows_for_a_margin(boxes):
    assert boxes.inside_box((480, 640)).tolist() == [True, True, False]
    assert boxes.inside_box((480, 640), boundary_threshold=100).tolist() == [True, True, True]


def test_scale_is_per_axis_and_in_place(boxes):
    boxes.scale(2, 0.5)
    assert boxes.tensor[0].tolist() == [0, 0, 20, 10]


def test_indexing(boxes):
    assert boxes[0].tensor.shape == (1, 4)
    assert boxes[-1].tensor.shape == (1, 4)
    assert len(boxes[1:]) == 2
    assert boxes[boxes.area() > 100].tensor.tolist() == boxes.tensor[[0, 2]].tolist()
    assert [row.shape for row in boxes] == [(4,)] * 3
    with pytest.raises(IndexError):
        boxes[3]


def test_cat_joins_in_order_and_copies(boxes):
    joined = Boxes.cat([boxes, boxes[:1]])
    assert len(joined) == 4
    joined.tensor.zero_()
    assert boxes.tensor.any()
    assert len(Boxes.cat([])) == 0
    with pytest.raises(TypeError, match="got list"):
        Boxes.cat([[1, 2, 3, 4]])


def test_copies_are_copies(boxes):
    for other in (boxes.clone(), copy.deepcopy(boxes), pickle.loads(pickle.dumps(boxes))):
        other.tensor.zero_()
        assert boxes.tensor.any()


def test_gradients_pass():
    corners = torch.tensor([[0.0, 0, 2, 3]], requires_grad=True)
    boxes = Boxes(corners)
    boxes.clip((2, 2))
    boxes.area().sum().backward()
    assert corners.grad is not None


@pytest.mark.parametrize("wrong", [[1, 2, 3, 4], [[1, 2, 3]], torch.ones(2, 2, 4)])
def test_a_wrong_shape_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must have shape \(N, 4\)"):
        Boxes(wrong)
