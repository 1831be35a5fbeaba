"""From names to loaders: what a recipe's ``dataloader`` node calls."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset

from hookline.data.catalog import DatasetCatalog, MetadataCatalog, Record
from hookline.data.checks import class_table
from hookline.data.loader import OnBadSample, TestLoader, TrainLoader, ids_sha256
from hookline.data.samplers import InferenceSampler, TrainingSampler
from hookline.data.serialized import DatasetFromList
from hookline.data.stream import TrainingStream

logger = logging.getLogger(__name__)

Source = str | Sequence[Any] | Dataset
"""A registered name, a list of names, a list of records, or a data set that is read by index."""


def get_detection_dataset_dicts(
    names: str | Sequence[str], filter_empty: bool = True, min_keypoints: int = 0, *, check_consistency: bool = True
) -> list[Record]:
    """Load registered data sets, one behind the other.

    Args:
        names: one or several registered names.
        filter_empty: leave out images that have no annotation besides crowds; for training.
        min_keypoints: leave out images with fewer labelled keypoints than this.
        check_consistency: refuse data sets whose class names differ.

    Returns:
        The records.

    Raises:
        ValueError: if a data set is empty, nothing is left of it, or the classes of several differ.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("no data set was named")
    records: list[Record] = []
    for name in names:
        loaded = DatasetCatalog.get(name)
        if not len(loaded):
            origin = MetadataCatalog.get(name).get("json_file")
            raise ValueError(f"data set {name!r} is empty" + (f": {origin} holds no image" if origin else ""))
        records += loaded
    if check_consistency:
        _check_same_classes(names)
    found = len(records)
    has_annotations = any(record.get("annotations") for record in records)
    if filter_empty and (has_annotations or "annotations" in records[0]):
        records = [r for r in records if any(not a.get("iscrowd", 0) for a in r.get("annotations", ()))]
    if min_keypoints > 0:
        records = [r for r in records if _num_keypoints(r) >= min_keypoints]
    if not records:
        least = f" and at least {min_keypoints} labelled keypoints" if min_keypoints else ""
        raise ValueError(f"none of the {found} images of {', '.join(names)} has an annotation that is no crowd{least}")
    _log_statistics(names, records, found)
    return records


def build_detection_train_loader(
    dataset: Source,
    *,
    mapper: Callable[[Any], Any] | None,
    total_batch_size: int,
    sampler: TrainingSampler | None = None,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    seed: int = 0,
    repeat_factors: Sequence[float] | NDArray[np.floating] | None = None,
    on_bad_sample: OnBadSample = "raise",
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **options: Any,
) -> TrainLoader:
    """Build the endless loader for training.

    Args:
        dataset: records, names of data sets, or a data set by index.
        mapper: turns a record into a sample; ``None`` takes records as they are.
        total_batch_size: samples in a global batch, over all processes.
        sampler: for recipes that name one: `TrainingSampler` gives its ``shuffle``, `RepeatFactorTrainingSampler` its
            factors too. The seed is this function's.
        aspect_ratio_grouping: keep landscape and portrait images apart, so that batches need less padding. A data set
            by index then needs a method ``image_sizes()`` that returns (N, 2) heights and widths.
        num_workers: processes that prepare samples; 0 prepares them in this one. Changes nothing in the batches.
        seed: of the order and the augmentations; the same on all ranks.
        repeat_factors: (N,) how often each sample appears in an epoch on average.
        on_bad_sample: ``"raise"``, or ``"skip"`` to replace, count and log samples that cannot be used.
        collate_fn: turns the list of samples into a batch; a list without it.
        options: ``pin_memory, prefetch_factor, worker_init_fn``, as in torch's loader; ``rank, world_size`` for tests.

    Returns:
        The loader: endless, with ``seek``. An empty data set, or a batch size that cannot be divided among the
        processes, is a ValueError.

    Raises:
        TypeError: if the data set or the sampler is of a kind that cannot begin at any position.
    """
    dataset = _loaded(dataset, filter_empty=True)
    shuffle = True
    if sampler is not None:
        if not isinstance(sampler, TrainingSampler):
            raise TypeError(
                f"sampler is a {type(sampler).__name__}; an endless sampler with a state cannot continue where it "
                "stopped. Give repeat_factors, or one of TrainingSampler, RepeatFactorTrainingSampler"
            )
        shuffle = sampler.shuffle
        repeat_factors = sampler.repeat_factors if repeat_factors is None else repeat_factors
    groups = _aspect_groups(dataset) if aspect_ratio_grouping else None
    stream = TrainingStream(
        len(dataset),  # type: ignore[arg-type]
        total_batch_size,
        seed,
        groups=groups,
        repeat_factors=repeat_factors,
        shuffle=shuffle,
    )
    return TrainLoader(
        _serialized(dataset),
        mapper,
        stream,
        collate_fn=collate_fn,
        on_bad_sample=on_bad_sample,
        ids_sha256=ids_sha256(dataset) if _holds_records(dataset) else None,  # type: ignore[arg-type]
        num_workers=num_workers,
        **options,
    )


def build_detection_test_loader(
    dataset: Source,
    *,
    mapper: Callable[[Any], Any] | None,
    sampler: Iterable[int] | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **options: Any,
) -> TestLoader:
    """Build the finite loader for evaluation.

    Args:
        dataset: records, names of data sets (images without annotations are kept), or a data set by index.
        mapper: turns a record into a sample; ``None`` takes records as they are.
        sampler: gives this rank's indices; contiguous parts of the data set without it, each sample on one rank.
        batch_size: samples in a batch of this process.
        num_workers: processes that prepare samples; 0 prepares them in this one.
        collate_fn: turns the list of samples into a batch; a list without it.
        options: ``pin_memory, prefetch_factor, worker_init_fn``, as in torch's loader.

    Returns:
        The loader: finite, with ``len``. An empty data set is a ValueError.
    """
    dataset = _loaded(dataset, filter_empty=False)
    indices = InferenceSampler(len(dataset)) if sampler is None else sampler  # type: ignore[arg-type]
    return TestLoader(
        _serialized(dataset), mapper, indices, batch_size, collate_fn=collate_fn, num_workers=num_workers, **options
    )


def _loaded(dataset: Source, filter_empty: bool) -> Sequence[Any] | Dataset:
    # Turn names into records, and refuse what is no data set or an empty one.
    if isinstance(dataset, str) or _are_names(dataset):
        dataset = get_detection_dataset_dicts(dataset, filter_empty=filter_empty)  # type: ignore[arg-type]
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            f"a {type(dataset).__name__} cannot be read by index, so no run could continue in the middle of it; give "
            "a list of records, names of data sets, or a data set with __len__ and __getitem__"
        )
    if not len(dataset):
        raise ValueError("the data set is empty: it holds no image")
    return dataset


def _are_names(dataset: Any) -> bool:
    """Tell whether this is a list of names; a config's list node counts too."""
    if isinstance(dataset, Dataset) or not isinstance(dataset, Sequence):
        return False
    return len(dataset) > 0 and all(isinstance(name, str) for name in dataset)


def _is_plain(dataset: Any) -> bool:
    return isinstance(dataset, Sequence) and not isinstance(dataset, Dataset)


def _serialized(dataset: Sequence[Any] | Dataset) -> Dataset:
    return DatasetFromList(dataset) if _is_plain(dataset) else dataset  # type: ignore[arg-type, return-value]


def _holds_records(dataset: Any) -> bool:
    return (_is_plain(dataset) or isinstance(dataset, DatasetFromList)) and isinstance(dataset[0], dict)


def _aspect_groups(dataset: Any) -> NDArray[np.int64]:
    # Return 0 for landscape, 1 for portrait and square images.
    if _holds_records(dataset):
        try:
            # No tuples: lasting objects would start the collector, which takes seconds over a million records.
            ratios = np.fromiter((r["height"] / r["width"] for r in dataset), dtype=np.float64, count=len(dataset))
        except KeyError as error:
            name = next(r.get("file_name", r.get("image_id")) for r in dataset if error.args[0] not in r)
            raise ValueError(f"aspect_ratio_grouping=True needs the {error} of each record; {name} has none") from None
    elif hasattr(dataset, "image_sizes"):
        heights, widths = np.asarray(dataset.image_sizes(), dtype=np.float64).T
        ratios = heights / widths
    else:
        raise TypeError(
            f"aspect_ratio_grouping=True needs image sizes without reading images, which {type(dataset).__name__} "
            "does not give: write a method image_sizes() -> (N, 2) heights and widths, or aspect_ratio_grouping=False"
        )
    return (ratios >= 1).astype(np.int64)


def _check_same_classes(names: list[str]) -> None:
    # Refuse to join data sets whose class numbers mean different things.
    known = {n: MetadataCatalog.get(n).get("thing_classes") for n in names if n in MetadataCatalog}
    lists = {n: list(classes) for n, classes in known.items() if classes is not None}
    for name, classes in lists.items():
        first, expected = next(iter(lists.items()))
        if classes != expected:
            place = next((k for k, (a, b) in enumerate(zip(expected, classes, strict=False)) if a != b), None)
            difference = f"{len(expected)} against {len(classes)} classes"
            if place is not None:
                difference = f"class {place} is {expected[place]!r} in one and {classes[place]!r} in the other"
            raise ValueError(f"data sets {first!r} and {name!r} do not have the same classes: {difference}")


def _num_keypoints(record: Record) -> int:
    """Count the labelled keypoints of an image, without crowds."""
    annotations = (a for a in record.get("annotations", ()) if not a.get("iscrowd", 0))
    return sum(visibility > 0 for a in annotations for visibility in a.get("keypoints", ())[2::3])


def _log_statistics(names: list[str], records: list[Record], found: int) -> None:
    left_out = f" ({found - len(records)} without usable annotations left out)" if found > len(records) else ""
    logger.info(f"{', '.join(names)}: {len(records)} images{left_out}")
    classes = MetadataCatalog.get(names[0]).get("thing_classes")
    if classes and any(record.get("annotations") for record in records):
        logger.info("Annotations by class:\n" + class_table(records, classes))
