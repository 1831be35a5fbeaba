import contextlib
import random

import numpy as np
import pytest
import torch

from hookline.data.draws import BatchMaker, MapperError, seeded
from hookline.data.errors import BadSampleError
from hookline.data.loader import trivial_batch_collator
from hookline.data.stream import TrainingStream


def numbers():
    return random.random(), np.random.rand(), torch.rand(()).item(), np.random.normal(), random.gauss(0, 1)


def test_a_draw_depends_on_seed_number_and_attempt_only():
    def drawn(*key):
        with seeded(*key):
            return numbers()

    first = drawn(1, 2)
    numbers()
    assert drawn(1, 2) == first
    others = [drawn(1, 3), drawn(2, 2), drawn(2, 1), drawn(1, 2, 1), first]
    assert all(len(set(column)) == 5 for column in zip(*others, strict=True))


def test_the_generators_are_left_as_they_were():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    np.random.normal()  # leaves a second normal number in the generator
    before = random.getstate(), np.random.get_state()[2:], torch.get_rng_state()
    with contextlib.suppress(KeyError), seeded(1, 2):
        numbers()
        raise KeyError
    assert random.getstate() == before[0]
    assert np.random.get_state()[2:] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def maker(mapper, collate=trivial_batch_collator, *, skip=False, size=10, replace=True):
    records = [{"file_name": f"{i}.jpg", "i": i} for i in range(size)]
    stream = TrainingStream(size, 2)
    return BatchMaker(records, mapper, collate, 0, skip=skip, replacement=stream.replacement if replace else None)


def fail_on(*bad, error=None):
    def mapper(record):
        if record["i"] in bad:
            raise error or BadSampleError("broken", annotation_id=5)
        return record["i"]

    return mapper


def test_samples_in_the_order_of_the_draws():
    batch = maker(lambda record: record["i"])[[(0, 4), (1, 2)]]
    assert batch == ([4, 2], [], None)


def test_a_bad_sample_is_named_by_file_and_annotation():
    batch = maker(fail_on(2))[[(0, 4), (1, 2)]]
    assert isinstance(batch.error, BadSampleError)
    assert str(batch.error) == "2.jpg: annotation 5: broken"


def test_a_bad_sample_is_replaced_by_the_draw_s_own_choice():
    made = maker(fail_on(2), skip=True)
    first = made[[(0, 4), (1, 2)]]
    assert first.content[0] == 4
    assert first.content[1] == TrainingStream(10, 2).replacement(1, 1, 2)
    assert first.skipped == ["2.jpg: annotation 5: broken"]
    assert made[[(0, 4), (1, 2)]] == first


def test_an_unreadable_file_is_a_bad_sample_too():
    error = OSError("image file is truncated")
    assert maker(fail_on(2, error=error), skip=True)[[(0, 2)]].skipped == ["2.jpg: OSError: image file is truncated"]
    told = maker(fail_on(2, error=error))[[(0, 2)]].error
    assert isinstance(told, MapperError)
    assert "mapper failed on 2.jpg: OSError: image file is truncated" in str(told)
    assert told.__cause__ is error


@pytest.mark.parametrize("error", [MemoryError("full"), NameError("x"), AttributeError("y")])
def test_a_mistake_in_the_program_is_never_skipped(error):
    told = maker(fail_on(2, error=error), skip=True)[[(0, 2)]].error
    assert isinstance(told, MapperError)
    assert type(error).__name__ in str(told)


def test_a_hundred_failures_in_a_row_end_it():
    batch = maker(fail_on(*range(10)), skip=True)[[(0, 2)]]
    assert str(batch.error).startswith("100 samples in a row cannot be used; the last one: ")
    assert len(batch.skipped) == 100


def test_none_asks_for_another_sample():
    batch = maker(lambda record: record["i"] if record["i"] != 2 else None)[[(0, 2)]]
    assert batch.content[0] not in (2, None)
    assert batch.skipped[0].startswith("2.jpg: ")
    assert batch.skipped[0].endswith("returned None")


def test_where_nothing_may_be_replaced_none_is_an_error():
    error = maker(lambda record: None, replace=False)[[(0, 2)]].error
    assert str(error).startswith("2.jpg: ")


def test_a_failing_collate_function_names_the_batch():
    def collate(samples):
        raise ValueError("sizes differ")

    error = maker(None, collate)[[(0, 4), (1, 2)]].error
    assert "collate failed on the batch of 4.jpg, 2.jpg: ValueError: sizes differ" in str(error)


def test_augmentations_of_a_replacement_are_its_own():
    def mapper(record):
        return None if record["i"] == 2 else numbers()

    made = maker(mapper)
    assert made[[(1, 2)]].content == made[[(1, 2)]].content
    assert made[[(1, 2)]].content != made[[(1, 3)]].content
