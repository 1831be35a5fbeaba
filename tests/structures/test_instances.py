import copy
import pickle

import pytest
import torch

from hookline.structures import Boxes, Instances, PolygonMasks

SQUARE = [0.0, 0.0, 4.0, 0.0, 4.0, 4.0]


@pytest.fixture
def instances():
    return Instances(
        (480, 640),
        gt_boxes=Boxes([[0, 0, 10, 10], [5, 5, 9, 9], [1, 1, 2, 2]]),
        gt_classes=torch.tensor([0, 2, 1]),
        gt_masks=PolygonMasks([[SQUARE]] * 3),
        names=["a", "b", "c"],
    )


def test_fields_are_attributes(instances):
    assert len(instances) == 3
    assert instances.image_size == (480, 640)
    assert instances.names == ["a", "b", "c"]
    assert instances.has("gt_boxes")
    assert not instances.has("scores")
    instances.scores = torch.rand(3)
    assert list(instances.get_fields()) == ["gt_boxes", "gt_classes", "gt_masks", "names", "scores"]
    instances.remove("scores")
    assert not instances.has("scores")


@pytest.mark.parametrize(
    ("item", "left"),
    [
        (1, ["b"]),
        (-1, ["c"]),
        (slice(1, None), ["b", "c"]),
        ([2, 0], ["c", "a"]),
        (torch.tensor([2, 0]), ["c", "a"]),
        (torch.tensor([True, False, True]), ["a", "c"]),
        (torch.zeros(0, dtype=torch.int64), []),
    ],
)
def test_indexing_reaches_every_field(instances, item, left):
    chosen = instances[item]
    assert chosen.names == left
    classes = dict(zip("abc", [0, 2, 1], strict=True))
    assert chosen.gt_classes.tolist() == [classes[name] for name in left]
    assert [len(value) for value in chosen.get_fields().values()] == [len(left)] * 4
    assert chosen.image_size == (480, 640)


def test_cat_joins_every_kind_of_field(instances):
    joined = Instances.cat([instances, instances[:1]])
    assert joined.names == ["a", "b", "c", "a"]
    assert len(joined.gt_boxes) == len(joined.gt_masks) == len(joined.gt_classes) == 4


def test_copy_and_pickle(instances):
    for other in (copy.copy(instances), copy.deepcopy(instances), pickle.loads(pickle.dumps(instances))):
        assert other.names == instances.names
        assert other.image_size == instances.image_size


def test_to_moves_what_can_be_moved(instances):
    moved = instances.to("meta")
    assert moved.gt_classes.device.type == "meta"
    assert moved.gt_boxes.device.type == "meta"
    assert moved.names == instances.names
    assert moved is not instances


def test_text_tells_count_size_and_fields(instances):
    text = str(instances)
    assert "num_instances=3" in text
    assert "image_height=480, image_width=640" in text
    assert "gt_classes" in text
    assert "num_instances" not in str(Instances((1, 1)))


def test_refuses_a_field_of_another_length(instances):
    with pytest.raises(ValueError, match="field 'scores' has 2 entries, but 'gt_boxes' of these Instances has 3"):
        instances.scores = torch.rand(2)
    with pytest.raises(ValueError, match="'b' has 2 entries"):
        Instances((4, 4), a=[1], b=[1, 2])
    with pytest.raises(TypeError, match="'scores' must hold one entry per object, got float"):
        instances.scores = 0.5


def test_the_only_field_may_change_its_length():
    instances = Instances((4, 4), a=[1])
    instances.a = [1, 2]
    assert len(instances) == 2


def test_a_missing_field_names_the_nearest(instances):
    with pytest.raises(AttributeError, match="no field 'gt_clases'; did you mean 'gt_classes'"):
        _ = instances.gt_clases
    with pytest.raises(KeyError, match="it has gt_boxes, gt_classes"):
        instances.get("zzz")
    with pytest.raises(KeyError, match="no field 'zzz'"):
        instances.remove("zzz")


def test_refuses_what_has_no_meaning(instances):
    with pytest.raises(IndexError, match="object 3 of 3"):
        instances[3]
    with pytest.raises(IndexError):
        instances[torch.tensor([True])]
    with pytest.raises(NotImplementedError, match="no length"):
        len(Instances((4, 4)))
    with pytest.raises(NotImplementedError, match="cannot be iterated"):
        iter(instances)


def test_cat_refuses_what_does_not_fit(instances):
    with pytest.raises(ValueError, match="at least one"):
        Instances.cat([])
    with pytest.raises(ValueError, match=r"sizes \(480, 640\) and \(4, 4\)"):
        Instances.cat([instances, Instances((4, 4))])
    other = instances[:1]
    other.scores = torch.rand(1)
    with pytest.raises(ValueError, match="only some have the field scores"):
        Instances.cat([instances, other])
    with pytest.raises(TypeError, match="got list"):
        Instances.cat([[], []])
    with pytest.raises(TypeError, match="cannot join the field 'text': str"):
        Instances.cat([Instances((4, 4), text="ab")] * 2)
