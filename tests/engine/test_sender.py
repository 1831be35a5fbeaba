"""The thread that does what may be slow or fail."""

import logging
import threading
import time

import pytest

from hookline.engine import sender as module
from hookline.engine.sender import Sender


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", (0.01, 0.02))
    monkeypatch.setattr(module, "LAST_TRY_S", 0.2)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_jobs_are_done_in_order_and_outside_of_the_caller(caplog):
    done = []
    sender = Sender("service")
    for number in range(50):
        sender.put(lambda number=number: done.append((number, threading.current_thread().name)))
    assert sender.wait(20.0)
    sender.close(20.0)
    assert done == [(number, "hookline-service") for number in range(50)]
    assert not warnings(caplog)


def test_a_failure_is_told_once_and_nothing_is_lost(caplog):
    done, tries = [], []

    def fragile():
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("no route")
        done.append("fragile")

    caplog.set_level(logging.INFO)
    sender = Sender("service")
    sender.put(fragile)
    sender.put(lambda: done.append("next"))
    deadline = time.monotonic() + 20.0
    while len(done) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    sender.close(20.0)
    assert done == ["fragile", "next"]
    assert [text for text in warnings(caplog) if "no route" in text] == warnings(caplog)
    assert "service works again" in caplog.text


def test_a_job_that_alone_fails_is_given_up(caplog):
    def bad():
        raise ValueError("no such name")

    done = []
    sender = Sender("service", "Look elsewhere")
    sender.put(bad)
    sender.put(lambda: done.append(1))
    deadline = time.monotonic() + 20.0
    while not done and time.monotonic() < deadline:
        time.sleep(0.01)
    sender.close(20.0)
    assert done == [1]
    assert "1 entries were not sent. Look elsewhere" in warnings(caplog)[-1]


def test_jobs_that_send_nothing_do_not_show_that_the_service_works(caplog):
    """Nothing is given up in an outage, however many of them stand between the others."""
    is_down, done = threading.Event(), []
    is_down.set()

    def row(number):
        if is_down.is_set():
            raise ConnectionError("down")
        done.append(number)

    sender = Sender("service")
    for number in range(6):
        sender.put(lambda number=number: row(number))
        sender.put(lambda: False)
    time.sleep(0.3)
    assert sender.is_failing
    is_down.clear()
    deadline = time.monotonic() + 20.0
    while not sender.wait(0.1) and time.monotonic() < deadline:
        time.sleep(0.01)
    sender.close(20.0)
    assert done == list(range(6))
    assert not any("not sent" in text for text in warnings(caplog))


def test_an_outage_that_ends_between_two_jobs_loses_none(caplog):
    done, tries = [], []

    def first():
        tries.append(1)
        if not done:  # the service comes back just before the second job
            raise ConnectionError("down")
        done.append("first")

    sender = Sender("service")
    sender.put(first)
    sender.put(lambda: done.append("second"))
    deadline = time.monotonic() + 20.0
    while len(done) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    sender.close(20.0)
    assert done == ["second", "first"]
    assert len(tries) == module.HOPELESS + 1
    assert not any("not sent" in text for text in warnings(caplog))


def test_closing_does_not_wait_long_for_a_service_that_is_down(caplog):
    def down():
        raise ConnectionError

    sender = Sender("service")
    for _ in range(5):
        sender.put(down)
    assert not sender.wait(20.0)
    start = time.monotonic()
    sender.close(60.0)
    assert time.monotonic() - start < 10.0
    assert "5 entries were not sent" in warnings(caplog)[-1]


def test_closing_leaves_a_job_that_hangs(caplog):
    hang = threading.Event()
    sender = Sender("service")
    sender.put(hang.wait)
    start = time.monotonic()
    sender.close(0.1)
    assert time.monotonic() - start < 5.0
    assert "1 entries were not sent" in warnings(caplog)[-1]
    hang.set()


def test_the_queue_is_bounded(caplog, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_LIMIT", 10)
    hang, done = threading.Event(), []
    sender = Sender("service")
    sender.put(hang.wait)
    for number in range(30):
        sender.put(lambda number=number: done.append(number))
    hang.set()
    sender.close(20.0)
    assert done == list(range(21, 30))
    assert "21 entries were not sent" in warnings(caplog)[-1]
