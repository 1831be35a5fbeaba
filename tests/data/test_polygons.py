"""The table of polygons beside one call per polygon."""

import numpy as np
import pytest

import hookline.data.transforms as T
from hookline.data.errors import BadSampleError
from hookline.data.polygons import PolygonTable


def instances(seed=0, count=6):
    random = np.random.default_rng(seed)
    return [
        [random.uniform(0, 100, 2 * random.integers(3, 9)).tolist() for _ in range(random.integers(1, 4))]
        for _ in range(count)
    ]


def table_of(polygons):
    return PolygonTable.from_lists(polygons, list(range(len(polygons))))


@pytest.mark.parametrize(
    "transforms",
    [
        T.TransformList([]),
        T.NoOpTransform(),
        T.TransformList([T.ResizeTransform(100, 100, 50, 230), T.HFlipTransform(230), T.VFlipTransform(50)]),
        T.TransformList([T.HFlipTransform(100), T.CropTransform(20, 30, 40, 50), T.ResizeTransform(50, 40, 100, 80)]),
        T.TransformList([T.CropTransform(2000, 30, 40, 50), T.HFlipTransform(40)]),
        T.TransformList([T.RotationTransform(100, 100, 30), T.BlendTransform(0, 0.5, 0.5)]),
    ],
)
def test_equals_one_polygon_after_the_other(transforms):
    given = instances()
    before = [[list(p) for p in polygons] for polygons in given]
    result = table_of(given).transformed(transforms).to_lists()
    assert len(result) == len(given)
    for polygons, moved in zip(given, result, strict=True):
        expected = transforms.apply_polygons([np.array(p).reshape(-1, 2) for p in polygons])
        assert len(moved) == len(expected)
        assert all(np.allclose(a, b.reshape(-1)) for a, b in zip(moved, expected, strict=True))
    assert given == before


def test_a_registered_handler_is_used():
    class Shift(T.NoOpTransform):
        pass

    Shift.register_type("polygons", lambda transform, polygons: polygons[:1])
    given = instances()
    assert [len(p) for p in table_of(given).transformed(T.TransformList([Shift()])).to_lists()] == [1] * len(given)


def test_transforms_do_not_change_the_table():
    table = table_of(instances())
    before = table.points.copy()
    table.transformed(T.HFlipTransform(100))
    assert np.array_equal(table.points, before)


def test_areas_and_extents():
    square, triangle = [0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 10, 16, 13, 10]
    table = table_of([[square], [triangle, square], [[1, 1, 2, 2, 3, 3]]])
    assert table.areas().tolist() == [16, 25, 0]
    assert table.per_annotation(np.minimum, table.points).tolist() == [[0, 0], [0, 0], [1, 1]]
    assert table.per_annotation(np.maximum, table.points).tolist() == [[4, 4], [13, 16], [3, 3]]
    assert len(table) == 3


def test_no_annotations():
    table = table_of([])
    assert table.to_lists() == []
    assert table.transformed(T.HFlipTransform(10)).to_lists() == []


def test_arrays_are_taken_too():
    points = np.arange(8.0).reshape(4, 2)
    assert table_of([[points]]).to_lists()[0][0].tolist() == list(range(8))


@pytest.mark.parametrize(
    ("polygons", "words"),
    [
        ([], "no polygon"),
        ([[1, 2, 3, 4]], "polygon 0 has 2 points"),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]], "polygon 1 has an odd number of coordinates: 7"),
        ([[1, 2, 3, float("nan"), 5, 6]], "finite"),
        ([[1, 2, 3, "x", 5, 6]], "no list of numbers"),
    ],
)
def test_unusable_polygons_are_named(polygons, words):
    good = [[0, 0, 4, 0, 4, 4]]
    with pytest.raises(BadSampleError, match=f"annotation b: .*{words}"):
        PolygonTable.from_lists([good, polygons, good], ["a", "b", "c"])
