import pytest
import torch

from hookline.modeling.matcher import Matcher


def _naive(quality, thresholds, labels, low_quality):
    matches, match_labels = [], []
    for n in range(quality.shape[1]):
        column = quality[:, n].tolist()
        best = max(column)
        matches.append(column.index(best))
        match_labels.append(labels[sum(best >= threshold for threshold in thresholds)])
    if low_quality:
        for row in quality.tolist():
            for n, value in enumerate(row):
                if value == max(row) and value > 0:
                    match_labels[n] = 1
    return matches, match_labels


@pytest.mark.parametrize("low_quality", [False, True])
def test_matches_equal_a_naive_loop(low_quality):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        quality = torch.rand(4, 30, generator=generator).mul(16).round().div(16)  # ties on purpose
        quality[seed % 4] *= 0.25
        matcher = Matcher([0.25, 0.75], [0, -1, 1], low_quality)
        matches, labels = matcher(quality)
        want_matches, want_labels = _naive(quality, [0.25, 0.75], [0, -1, 1], low_quality)
        assert quality[matches, torch.arange(30)].tolist() == quality[want_matches, torch.arange(30)].tolist()
        assert labels.tolist() == want_labels
        assert (matches.dtype, labels.dtype) == (torch.int64, torch.int8)


def test_quality_on_a_threshold_belongs_above_it():
    _, labels = Matcher([0.25, 0.5], [0, -1, 1])(torch.tensor([[0.2, 0.25, 0.4, 0.5]]))
    assert labels.tolist() == [0, -1, -1, 1]


def test_without_ground_truths_all_have_the_lowest_label():
    matches, labels = Matcher([0.5], [0, 1], True)(torch.zeros(0, 5))
    assert matches.tolist() == [0] * 5
    assert labels.tolist() == [0] * 5
    assert Matcher([0.5], [0, 1])(torch.zeros(3, 0))[0].shape == (0,)


def test_a_ground_truth_that_nothing_overlaps_makes_no_foreground():
    _, labels = Matcher([0.5], [0, 1], True)(torch.tensor([[0.0, 0.0], [0.0, 0.1]]))
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize(("arguments", "words"), [
    (([0.7, 0.3], [0, -1, 1]), "thresholds="), (([0.0], [0, 1]), "thresholds="), (([0.5], [0]), "labels="),
    (([0.5], [0, 2]), "labels=2"), (([float("inf")], [0, 1]), "thresholds="),
])  # fmt: skip
def test_wrong_arguments_are_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        Matcher(*arguments)


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"\(M, N\), got \(3,\)"):
        Matcher([0.5], [0, 1])(torch.zeros(3))
