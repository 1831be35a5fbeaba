from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from hookline.visualization.labels import _overlap, place_label


def test_the_usual_place_is_above_the_box():
    assert place_label((10, 30), (50, 40, 90, 80), (100, 200), []) == (50, 30, 80, 40)


def test_at_the_top_it_moves_down_into_the_box():
    assert place_label((10, 30), (50, 2, 90, 80), (100, 200), []) == (50, 0, 80, 10)


def test_a_taken_place_is_avoided():
    first = place_label((10, 30), (50, 40, 90, 80), (100, 200), [])
    second = place_label((10, 30), (50, 40, 90, 80), (100, 200), [first])
    assert _overlap(first, second) == 0


def test_many_labels_of_one_box_do_not_cover_each_other():
    taken = []
    for _ in range(8):
        taken.append(place_label((10, 30), (50, 40, 130, 120), (200, 300), taken))
    assert all(_overlap(a, b) == 0 for a, b in combinations(taken, 2))


@settings(deadline=None)
@given(
    st.tuples(*[st.floats(-50, 150)] * 2, *[st.floats(0, 100)] * 2),
    st.tuples(st.floats(1, 40), st.floats(1, 90)),
    st.integers(0, 4),
)
def test_labels_stay_inside_the_image(box, size, number):
    x, y, w, h = box
    taken = []
    for _ in range(number + 1):
        taken.append(place_label(size, (x, y, x + w, y + h), (100, 100), taken))
    for x0, y0, x1, y1 in taken:
        assert min(x0, y0) >= 0
        assert max(x1, y1) <= 100 + 1e-9
