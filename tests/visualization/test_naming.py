from types import SimpleNamespace

from hookline.visualization.colormap import class_color
from hookline.visualization.naming import label_texts, object_colors

METADATA = SimpleNamespace(thing_classes=["cat", "dog"], thing_colors=[(1, 2, 3), (4, 5, 6)])


def test_names_scores_and_crowds():
    assert label_texts([1, 0], METADATA, scores=[0.974, 1.0]) == ["dog 97%", "cat 100%"]
    assert label_texts([1, 0], METADATA, crowd=[True, False]) == ["dog (crowd)", "cat"]


def test_without_metadata_the_number_is_the_name():
    assert label_texts([3], None) == ["3"]
    assert label_texts([7], METADATA) == ["7"]
    assert label_texts(None, None, scores=[0.5]) == ["50%"]
    assert label_texts(None, METADATA) is None


def test_colours_come_from_the_metadata():
    assert object_colors([1, 1], METADATA, shades=False) == [(4, 5, 6)] * 2
    assert object_colors([1], None, shades=True) == [class_color(1)]
    first, second = object_colors([1, 1], METADATA, shades=True)
    assert first == (4, 5, 6) != second
    assert object_colors(None, METADATA, shades=True) is None
