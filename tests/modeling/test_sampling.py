import pytest
import torch

from hookline.modeling.sampling import sample_batch, subsample_labels


@pytest.mark.parametrize(("num_positive", "num_negative", "want"), [
    (100, 100, (8, 24)), (3, 100, (3, 29)), (100, 5, (8, 5)), (0, 100, (0, 32)), (0, 0, (0, 0)), (10, 0, (8, 0)),
])  # fmt: skip
def test_both_ways_of_sampling_draw_the_same_numbers(num_positive, num_negative, want):
    labels = torch.cat([torch.ones(num_positive), torch.zeros(num_negative), -torch.ones(7)]).to(torch.int8)
    labels = labels[torch.randperm(len(labels))]
    positive, negative = subsample_labels(labels, 32, 0.25, 0)
    assert (len(positive), len(negative)) == want
    fixed = sample_batch(labels.expand(3, -1), 32, 0.25)
    assert fixed.positive_used.sum(1).tolist() == [want[0]] * 3
    assert fixed.negative_used.sum(1).tolist() == [want[1]] * 3
    for indices, label in ((positive, 1), (negative, 0)):
        assert (labels[indices] == label).all()
        assert len(indices.unique()) == len(indices)
    for row in range(3):
        chosen = [fixed.positive[row][fixed.positive_used[row]], fixed.negative[row][fixed.negative_used[row]]]
        for indices, label in zip(chosen, (1, 0), strict=True):
            assert (labels[indices] == label).all()
            assert len(indices.unique()) == len(indices)


def test_every_class_but_background_and_ignored_is_foreground():
    positive, negative = subsample_labels(torch.tensor([0, 3, -1, 5, 3]), 10, 1.0, bg_label=3)
    assert sorted(positive.tolist()) == [0, 3]
    assert sorted(negative.tolist()) == [1, 4]


def test_samples_are_uniform():
    counts = torch.zeros(20)
    labels = torch.zeros(1, 20, dtype=torch.int8)
    labels[0, :10] = 1
    for _ in range(500):
        fixed = sample_batch(labels, 8, 0.5)
        counts[fixed.positive[fixed.positive_used]] += 1
        counts[fixed.negative[fixed.negative_used]] += 1
    assert counts.sum() == 500 * 8
    assert counts.min() > 140  # 200 expected, standard deviation 11
    assert counts.max() < 260
