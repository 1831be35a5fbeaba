import logging
from itertools import islice

import pytest

from hookline.engine.batches import BatchStream, file_names


def test_a_finite_loader_is_started_again():
    assert list(islice(BatchStream([1, 2, 3]), 8)) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_nothing_is_drawn_before_it_is_asked_for():
    class Loader:
        started = 0

        def __iter__(self):
            self.started += 1
            return iter("ab")

    loader = Loader()
    stream = BatchStream(loader)
    assert loader.started == 0
    next(stream)
    next(stream)
    assert loader.started == 1
    next(stream)
    assert loader.started == 2
    stream.close()
    next(stream)
    assert loader.started == 3


def test_seek_before_iterating(stream):
    loader = stream(batch_size=1)
    batches = BatchStream(loader)
    next(batches)
    batches.seek(7)
    assert next(batches)[0]["file_name"] == "0007.jpg"
    assert loader.seeks == [7]


def test_a_loader_without_seek_is_reported_on_resume_only(caplog):
    batches = BatchStream([1, 2])
    with caplog.at_level(logging.WARNING):
        batches.seek(0)
        assert not caplog.records
        batches.seek(5)
    assert "list has no method seek" in caplog.text


@pytest.mark.parametrize("loader", [[], iter([])])
def test_an_empty_loader_is_an_error(loader):
    with pytest.raises(RuntimeError, match="gave no batch"):
        next(BatchStream(loader))


def test_an_exhausted_iterator_is_an_error():
    stream = BatchStream(iter([1, 2]))
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(RuntimeError, match="iterated only once"):
        next(stream)


def test_what_is_no_loader_is_refused():
    with pytest.raises(TypeError, match="int"):
        BatchStream(3)


def test_file_names():
    assert file_names([{"file_name": "a"}, {"image": 1}, {"file_name": "b"}]) == ["a", "b"]
    assert file_names(({"file_name": "a"},)) == ["a"]
    assert file_names({"file_name": "a"}) == []
    assert file_names(None) == []
