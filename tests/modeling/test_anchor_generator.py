import math

import pytest
import torch

from hookline.modeling.anchor_generator import DefaultAnchorGenerator
from hookline.modeling.layers import ShapeSpec


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_anchors_equal_a_naive_loop(offset):
    sizes, ratios, strides = [[32], [64, 90]], [[0.5, 1.0, 2.0], [1.0, 3.0]], [4, 8]
    generator = DefaultAnchorGenerator(sizes=sizes, aspect_ratios=ratios, strides=strides, offset=offset)
    grids = [(3, 5), (2, 2)]
    got = generator([torch.zeros(2, 7, *grid) for grid in grids])
    for level, grid in enumerate(grids):
        want = []
        for row in range(grid[0]):
            for column in range(grid[1]):
                for size in sizes[level]:
                    for ratio in ratios[level]:
                        x, y = ((place + offset) * strides[level] for place in (column, row))
                        w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                        want.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
        torch.testing.assert_close(got[level].tensor, torch.tensor(want))


def test_one_list_serves_all_levels():
    generator = DefaultAnchorGenerator(sizes=[32, 64], aspect_ratios=[1.0, 2.0], strides=[4, 8, 16])
    assert generator.num_anchors == generator.num_cell_anchors == [4, 4, 4]
    assert generator.box_dim == 4
    assert [len(boxes) for boxes in generator([torch.zeros(1, 1, 2, 2)] * 3)] == [16, 16, 16]


def test_anchors_are_not_in_checkpoints_but_move_with_the_model():
    generator = DefaultAnchorGenerator(sizes=[[32]], aspect_ratios=[[1.0]], strides=[4])
    assert generator.state_dict() == {}
    assert generator.to(torch.float64).cell_anchors[0].dtype == torch.float64


def test_strides_come_from_shapes():
    generator = DefaultAnchorGenerator.from_shapes([ShapeSpec(stride=8)], sizes=[[32]], aspect_ratios=[[1.0]])
    assert generator.strides == [8]


@pytest.mark.parametrize(("arguments", "words"), [
    ({"strides": []}, "strides is empty"),
    ({"offset": 1.0}, "offset=1.0"),
    ({"sizes": [[32], [64]]}, "sizes has lists for 2 levels, but there are 3"),
    ({"sizes": []}, "sizes is empty"),
    ({"aspect_ratios": [0.0]}, "aspect_ratios=0.0"),
    ({"strides": [4, 8, -1]}, "strides=-1"),
])  # fmt: skip
def test_wrong_arguments_are_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        DefaultAnchorGenerator(**{"sizes": [32], "aspect_ratios": [1.0], "strides": [4, 8, 16], **arguments})


def test_another_number_of_feature_maps_is_refused():
    generator = DefaultAnchorGenerator(sizes=[32], aspect_ratios=[1.0], strides=[4, 8])
    with pytest.raises(ValueError, match="3 feature maps given to an anchor generator of 2 levels"):
        generator([torch.zeros(1, 1, 1, 1)] * 3)
