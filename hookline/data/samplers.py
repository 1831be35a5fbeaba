"""Samplers by Detectron2's names, as thin views of the training stream, and the one for inference."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from hookline import distributed
from hookline.data.catalog import Record
from hookline.data.stream import TrainingStream


class TrainingSampler(Sampler[int]):
    """An endless stream of indices, of which each rank takes every W-th.

    The train loader does not need it; it is for own loops and for recipes that name it. `build_detection_train_loader`
    reads ``shuffle`` from it.

    Args:
        size: samples in the data set.
        shuffle: draw a new order for each epoch.
        seed: the same on all ranks; drawn and shared among them if it is ``None``.
    """

    repeat_factors: NDArray[np.float64] | None = None

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None) -> None:
        self.shuffle = shuffle
        self.seed = distributed.shared_random_seed() if seed is None else seed
        self.stream = TrainingStream(size, 1, self.seed, repeat_factors=self.repeat_factors, shuffle=shuffle)

    def __iter__(self) -> Iterator[int]:
        rank, step = distributed.get_rank(), distributed.get_world_size()
        return islice(self._all(), rank, None, step)

    def _all(self) -> Iterator[int]:
        for epoch in count():
            yield from self.stream.epoch(epoch).tolist()


class RepeatFactorTrainingSampler(TrainingSampler):
    """An endless stream in which rare categories' images appear more often.

    Source: Gupta et al., LVIS (2019), appendix B.2, https://arxiv.org/abs/1908.03195

    Args:
        repeat_factors: (N,) how often each sample appears in an epoch on average.
        shuffle: draw a new order for each epoch.
        seed: the same on all ranks; drawn and shared among them if it is ``None``.
    """

    def __init__(
        self, repeat_factors: Sequence[float] | NDArray[np.floating], *, shuffle: bool = True, seed: int | None = None
    ) -> None:
        self.repeat_factors = np.asarray(repeat_factors, dtype=np.float64)
        super().__init__(len(self.repeat_factors), shuffle, seed)

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: Iterable[Record], repeat_thresh: float, sqrt: bool = True
    ) -> NDArray[np.float64]:
        """See the function of the same name."""
        return repeat_factors_from_category_frequency(dataset_dicts, repeat_thresh, sqrt)


def repeat_factors_from_category_frequency(
    dataset_dicts: Iterable[Record], repeat_thresh: float, sqrt: bool = True
) -> NDArray[np.float64]:
    """Compute how often each image should appear so that rare categories are seen enough.

    With f(c) the fraction of images that contain category c, the category's factor is r(c) = max(1, sqrt(t / f(c))),
    and the image's is r = max over its categories; 1 for an image without annotations.

    Source: Gupta et al., LVIS (2019), appendix B.2, https://arxiv.org/abs/1908.03195

    Args:
        dataset_dicts: N records.
        repeat_thresh: t, in [0, 1]; categories that appear in fewer images than this fraction are repeated.
        sqrt: False leaves the square root out.

    Returns:
        (N,) factors of at least 1.

    Raises:
        ValueError: if the threshold is not in [0, 1].
    """
    if not 0 <= repeat_thresh <= 1:
        raise ValueError(f"repeat_thresh is a fraction of the images, from 0 to 1, got {repeat_thresh}")
    categories = [{a["category_id"] for a in record.get("annotations", ())} for record in dataset_dicts]
    images = Counter(category for of_image in categories for category in of_image)
    power = 0.5 if sqrt else 1.0
    factor: dict[int, float] = defaultdict(lambda: 1.0)
    for category, number in images.items():
        factor[category] = max(1.0, (repeat_thresh * len(categories) / number) ** power)
    return np.array([max((factor[c] for c in of_image), default=1.0) for of_image in categories], dtype=np.float64)


class InferenceSampler(Sampler[int]):
    """Each sample exactly once: every rank gets a contiguous part, in order; sizes differ by one at most.

    Args:
        size: samples in the data set; ranks beyond that many get none.
        rank: this process's number; asked from the process group if it is ``None``.
        world_size: the number of processes; asked likewise.
    """

    def __init__(self, size: int, rank: int | None = None, world_size: int | None = None) -> None:
        rank = distributed.get_rank() if rank is None else rank
        world_size = distributed.get_world_size() if world_size is None else world_size
        self._part = range(size * rank // world_size, size * (rank + 1) // world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self._part)

    def __len__(self) -> int:
        return len(self._part)
