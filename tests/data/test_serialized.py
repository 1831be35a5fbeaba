import multiprocessing

import pytest
from torch.utils.data import DataLoader

from hookline.data.serialized import DatasetFromList, MapDataset

ITEMS = [{"a": 1}, [1, 2, "three"], None, {"nested": {"x": (1.5, b"bytes")}}, "x" * 1000]


@pytest.mark.parametrize("serialize", [True, False])
def test_items_come_back_equal_and_new(serialize):
    dataset = DatasetFromList(ITEMS, serialize=serialize)
    assert len(dataset) == 5
    assert list(dataset) == ITEMS
    assert dataset[-1] == ITEMS[-1]
    dataset[0]["a"] = 2
    assert dataset[0] == {"a": 1} == ITEMS[0]


def test_without_copies_the_list_itself_is_shown():
    assert DatasetFromList(ITEMS, copy=False, serialize=False)[0] is ITEMS[0]


@pytest.mark.parametrize("serialize", [True, False])
@pytest.mark.parametrize("index", [5, -6])
def test_an_index_outside_is_an_index_error(serialize, index):
    with pytest.raises(IndexError):
        DatasetFromList(ITEMS, serialize=serialize)[index]


def test_an_empty_list():
    assert list(DatasetFromList([])) == []


def test_one_buffer_holds_everything():
    assert 1000 < DatasetFromList(ITEMS).num_bytes < 1500
    assert DatasetFromList(ITEMS, serialize=False).num_bytes == 0


def _report(dataset, queue):
    queue.put((dataset._bytes.is_shared(), list(dataset)))


def test_a_spawned_process_is_sent_a_handle():
    dataset = DatasetFromList(ITEMS * 1000)
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    import torch.multiprocessing  # teaches the pickler of processes how to send tensors by handle

    assert torch.multiprocessing
    process = context.Process(target=_report, args=(dataset, queue))
    process.start()
    shared, items = queue.get()
    process.join()
    assert shared
    assert dataset._bytes.is_shared()
    assert items == ITEMS * 1000


def test_a_map_over_a_list():
    mapped = MapDataset(DatasetFromList([1, 2, 3]), lambda x: 10 * x)
    assert [mapped[i] for i in range(len(mapped))] == [10, 20, 30]


def test_none_is_replaced_by_another_item_always_the_same():
    mapped = MapDataset(list(range(20)), lambda x: x if x % 2 else None)
    first = [mapped[i] for i in range(20)]
    assert all(x % 2 for x in first)
    assert first[1::2] == list(range(1, 20, 2))
    assert [mapped[i] for i in range(20)] == first


def test_none_for_all_is_an_error():
    with pytest.raises(RuntimeError, match="returned None for item 0 and 999 replacements"):
        MapDataset([1, 2], lambda x: None)[0]


@pytest.mark.slow
def test_a_lambda_reaches_spawned_workers():
    factor = 3
    mapped = MapDataset(DatasetFromList([1, 2, 3]), lambda x: factor * x)
    loader = DataLoader(mapped, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert [int(x) for x in loader] == [3, 6, 9]
