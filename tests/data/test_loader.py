import gc
import multiprocessing
import os
import pickle
import random
import signal
from itertools import chain, islice

import numpy as np
import psutil
import pytest
import torch

from hookline.data.build import build_detection_test_loader, build_detection_train_loader
from hookline.data.draws import MapperError
from hookline.data.errors import BadSampleError
from hookline.data.stream import TrainingStream
from hookline.data.workers import DataWorkerError

RECORDS = [{"file_name": f"{i}.jpg", "image_id": i, "height": 3 + i % 2, "width": 4 - i % 2} for i in range(23)]


def augment(record):
    """A mapper that draws from all three generators."""
    noise = random.random(), np.random.normal(), np.random.rand(), torch.rand(2).tolist()
    return {"image": torch.randn(3, 4), "id": record["image_id"], "noise": noise}


def train(mapper=augment, **options):
    return build_detection_train_loader(
        options.pop("dataset", RECORDS), mapper=mapper, **({"total_batch_size": 4, "seed": 7} | options)
    )


def take(loader, count):
    iterator = iter(loader)
    batches = list(islice(iterator, count))
    iterator.close()
    return batches


def as_bytes(batches):
    return [[pickle.dumps((s["id"], s["noise"], s["image"].numpy().tobytes())) for s in batch] for batch in batches]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")  # on a machine with two cores
def test_batches_do_not_depend_on_the_workers():
    expected = as_bytes(take(train(), 14))
    for workers in (2, 3):
        assert as_bytes(take(train(num_workers=workers), 14)) == expected
    assert as_bytes(take(train(seed=8), 14)) != expected


@pytest.mark.parametrize("workers", [0, 2])
def test_seeking_equals_skipping(workers):
    expected = as_bytes(take(train(), 20))
    loader = train(num_workers=workers)
    for position in (13, 1, 0):
        loader.seek(position)
        assert as_bytes(take(loader, 5)) == expected[position : position + 5]


def test_ranks_together_have_the_global_batch():
    expected = as_bytes(take(train(), 14))
    for world in (2, 4):
        parts = [as_bytes(take(train(rank=rank, world_size=world), 14)) for rank in range(world)]
        assert [list(chain.from_iterable(part[k] for part in parts)) for k in range(14)] == expected


def test_the_plan_is_what_is_read():
    loader = train(rank=1, world_size=2)
    assert [[s["id"] for s in batch] for batch in take(loader, 9)] == [
        [index for _, index in loader.plan(k)[2:]] for k in range(9)
    ]
    assert loader.plan(3)[0][0] == 12
    assert loader.batch_size == 4
    assert loader.epoch_length == 23


def test_batches_hold_one_aspect_ratio_but_for_the_last_of_a_window():
    batches = take(train(), 18)
    for number, batch in enumerate(batches):
        assert len({s["id"] % 2 for s in batch}) == 1 or number % 6 == 5
    assert any(len({s["id"] % 2 for s in batch}) > 1 for batch in take(train(aspect_ratio_grouping=False), 5))


def test_the_generators_of_the_main_process_are_not_touched():
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    for workers in (0, 1):
        take(train(num_workers=workers), 3)
        list(build_detection_test_loader(RECORDS, mapper=augment, num_workers=workers))
    assert states() == before


def test_a_fingerprint_knows_the_data_and_the_order():
    moved = [r | {"file_name": "/else/where/" + r["file_name"]} for r in RECORDS]
    expected = train().fingerprint()
    assert train(dataset=moved, num_workers=3, rank=1, world_size=2).fingerprint() == expected
    others = [
        train(seed=8),
        train(total_batch_size=8),
        train(dataset=RECORDS[::-1]),
        train(aspect_ratio_grouping=False),
        train(repeat_factors=[2.0] * 23),
    ]
    assert all(other.fingerprint() != expected for other in others)
    assert all(isinstance(value, (int, str)) for value in expected.values())


def test_a_batch_that_cannot_be_divided_names_the_nearest():
    with pytest.raises(ValueError, match="total_batch_size=10 cannot be divided among 4 processes; nearest: 8 or 12"):
        train(total_batch_size=10, rank=0, world_size=4)
    with pytest.raises(ValueError, match=r"nearest: 4$"):
        train(total_batch_size=3, rank=0, world_size=4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_bad_sample": "ignore"}, "on_bad_sample must be 'raise' or 'skip', got 'ignore'"),
        ({"num_workers": -1}, "num_workers must be 0 or more"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(ValueError, match=words):
        train(**options)
    with pytest.raises(ValueError, match="cannot begin at batch -1"):
        train().seek(-1)


def bad_ones(record):
    if record["image_id"] % 5 == 0:
        raise BadSampleError("broken", record["file_name"], 3)
    return {"id": record["image_id"]}


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_counts_and_logs(workers, caplog):
    loader = train(bad_ones, on_bad_sample="skip", num_workers=workers)
    ids = [[s["id"] for s in batch] for batch in take(loader, 12)]
    assert ids == [[s["id"] for s in batch] for batch in take(train(bad_ones, on_bad_sample="skip"), 12)]
    planned = [[index for _, index in loader.plan(k)] for k in range(12)]
    kept = [i for i in chain.from_iterable(planned) if i % 5]
    assert [
        i for batch, plan in zip(ids, planned, strict=True) for i, p in zip(batch, plan, strict=True) if p % 5
    ] == kept
    assert loader.num_skipped >= 48 - len(kept) > 0
    assert "Skipped a sample (1 so far): " in caplog.text
    assert ".jpg: annotation 3: broken" in caplog.text


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_sample_is_raised_when_its_batch_is_due(workers):
    loader = train(bad_ones, num_workers=workers)
    first_bad = next(k for k in range(99) if any(i % 5 == 0 for _, i in loader.plan(k)))
    name = next(i for _, i in loader.plan(first_bad) if i % 5 == 0)
    iterator = iter(loader)
    for _ in range(first_bad):
        next(iterator)
    with pytest.raises(BadSampleError) as caught:
        next(iterator)
    assert str(caught.value) == f"{name}.jpg: annotation 3: broken"


def wrong(record):
    return record["no such key"]


def test_a_failing_mapper_shows_its_file_and_its_own_traceback():
    with pytest.raises(MapperError) as caught:
        take(train(wrong, num_workers=1), 1)
    text = str(caught.value)
    assert text.splitlines()[0].startswith("wrong failed on ")
    assert text.splitlines()[0].endswith(".jpg: KeyError: 'no such key'")
    assert 'return record["no such key"]' in text
    assert "torch" not in text


def test_workers_end_with_the_iterator():
    loader = train(num_workers=2)
    iterator = iter(loader)
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    del iterator
    gc.collect()
    assert not multiprocessing.active_children()
    for _ in loader:
        break
    assert not multiprocessing.active_children()


def process_id(record):
    return os.getpid()


def test_a_killed_worker_is_explained():
    iterator = iter(train(process_id, num_workers=1))
    os.kill(next(iterator)[0], signal.SIGKILL)
    with pytest.raises(
        DataWorkerError, match=r"a data worker died, one of 1\. If nobody killed it, .* memory was full"
    ):
        list(islice(iterator, 1000))


def test_workers_leave_the_scheduler_s_signals_to_the_trainer():
    received = []
    names = (signal.SIGUSR1, signal.SIGUSR2)
    previous = {name: signal.signal(name, lambda number, frame: received.append(os.getpid())) for name in names}
    try:
        iterator = iter(train(process_id, num_workers=2))
        pids = {next(iterator)[0] for _ in range(4)}
        assert len(pids) == 2
        for pid in pids:
            for name in (*names, signal.SIGINT):
                os.kill(pid, name)
        assert {next(iterator)[0] for _ in range(20)} == pids
        iterator.close()
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
    assert not received


class Images(torch.utils.data.Dataset):
    """A data set of somebody else's: items are samples already, and drawn at random."""

    def __len__(self):
        return 9

    def __getitem__(self, index):
        return {"id": index, "noise": random.random(), "image": torch.rand(2)}

    def image_sizes(self):
        return [(1 + i % 2, 2 - i % 2) for i in range(9)]


def test_a_data_set_by_index():
    loader = train(None, dataset=Images())
    assert loader.records is None
    assert as_bytes(take(loader, 9)) == as_bytes(take(train(None, dataset=Images(), num_workers=2), 9))
    assert loader.fingerprint()["ids_sha256"] is None


def test_a_collate_function_makes_the_batch():
    loader = train(collate_fn=lambda samples: torch.stack([s["image"] for s in samples]), num_workers=1)
    assert take(loader, 1)[0].shape == (4, 3, 4)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_test_loader_reads_everything_once_in_order(workers, batch_size):
    loader = build_detection_test_loader(RECORDS, mapper=augment, batch_size=batch_size, num_workers=workers)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader)
        assert [s["id"] for batch in batches for s in batch] == list(range(23))


def test_a_test_loader_with_fewer_images_than_ranks():
    parts = [build_detection_test_loader(RECORDS[:2], mapper=None, sampler=range(r, min(r + 1, 2))) for r in range(4)]
    assert [len(part) for part in parts] == [1, 1, 0, 0]
    assert [len(list(part)) for part in parts] == [1, 1, 0, 0]


def test_a_bad_test_image_is_raised():
    with pytest.raises(BadSampleError, match=r"0.jpg: annotation 3: broken"):
        list(build_detection_test_loader(RECORDS, mapper=bad_ones))


class Reporting:
    """Reads a record and tells, every so often, how much memory the worker does not share with others, in bytes."""

    def __call__(self, record):
        assert record["annotations"]
        return psutil.Process().memory_full_info().uss if record["image_id"] % 500 == 0 else 0


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="the system does not tell what a process shares")
def test_the_memory_of_workers_does_not_grow():
    annotations = [{"bbox": [float(k)] * 4, "segmentation": [[k + i / 50 for i in range(40)]]} for k in range(20)]
    records = [{"image_id": i, "annotations": annotations} for i in range(4000)]
    loader = train(Reporting(), dataset=records, aspect_ratio_grouping=False, total_batch_size=50, num_workers=1)
    size = loader.dataset.num_bytes
    assert size > 20e6
    used = [report for batch in take(loader, 240) for report in batch if report]  # three epochs
    assert len(used) == 24
    # Records kept as objects would be copied by reading them, which adds more than `size` in the first epoch.
    assert max(used) - used[0] < size / 4


def test_a_position_far_away_is_reached_without_planning_what_lies_before(monkeypatch):
    planned = []
    window = TrainingStream.window
    monkeypatch.setattr(TrainingStream, "window", lambda self, number: planned.append(number) or window(self, number))
    loader = train()
    loader.seek(500_000)
    take(loader, 1)
    assert planned == [500_000 // 6]
