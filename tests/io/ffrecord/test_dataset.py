"""Records through torch's loader, a batch by one call."""

import pytest
from torch.utils.data import DataLoader

from hookline.io.ffrecord import FileWriter
from hookline.io.ffrecord.dataset import FFRecordDataset

NUM = 60


def content(i):
    return bytes([i]) * (i * 400)


@pytest.fixture
def file(tmp_path):
    with FileWriter(tmp_path / "x.ffr", NUM) as writer:
        for i in range(NUM):
            writer.write_one(content(i))
    return tmp_path / "x.ffr"


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "spawn")])
def test_the_loader_reads_batches(file, workers, method):
    dataset = FFRecordDataset(file, process=bytes)
    dataset.reader.read([3, 4])
    loader = DataLoader(
        dataset, batch_size=8, num_workers=workers, multiprocessing_context=method, collate_fn=_as_it_is
    )
    assert [sample for batch in loader for sample in batch] == [content(i) for i in range(NUM)]


def _as_it_is(batch):
    return batch


def test_a_batch_is_one_call(file, monkeypatch):
    dataset, calls = FFRecordDataset(file), []
    read = dataset.reader.read
    monkeypatch.setattr(dataset.reader, "read", lambda indices: calls.append(list(indices)) or read(indices))
    assert len(list(DataLoader(dataset, batch_size=20, collate_fn=_as_it_is))) == 3
    assert calls == [list(range(20)), list(range(20, 40)), list(range(40, 60))]
    assert dataset[5].tobytes() == content(5)
    assert len(dataset) == NUM


def test_a_subclass_sees_whole_batches(file):
    class Lengths(FFRecordDataset):
        def process(self, indices, data):
            return [(index, len(record)) for index, record in zip(indices, data, strict=True)]

    dataset = Lengths(file)
    assert dataset[3] == (3, 1200)
    assert dataset.__getitems__([4, 2]) == [(4, 1600), (2, 800)]
