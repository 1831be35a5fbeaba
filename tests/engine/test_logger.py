"""Text logs of a rank."""

import logging

import pytest

from hookline.engine.logger import close_logger, setup_logger


@pytest.fixture
def fail():
    def log_a_failure() -> None:
        try:
            raise ValueError("what went wrong")
        except ValueError:
            logging.getLogger("hookline.test").exception("the run ended")

    yield log_a_failure
    close_logger()


def test_a_traceback_goes_to_the_file_and_the_message_to_the_console_too(tmp_path, capsys, fail):
    setup_logger(tmp_path)
    fail()
    shown, kept = capsys.readouterr().out, (tmp_path / "log.txt").read_text()
    assert "ERROR the run ended" in shown
    assert "Traceback" not in shown
    assert "ERROR the run ended" in kept
    assert "ValueError: what went wrong" in kept


def test_without_a_file_the_console_has_the_traceback(capsys, fail):
    setup_logger()
    fail()
    assert "ValueError: what went wrong" in capsys.readouterr().out


def test_other_ranks_write_their_own_file_only(tmp_path, capsys, fail):
    setup_logger(tmp_path, rank=1)
    fail()
    assert capsys.readouterr().out == ""
    assert "rank1" in (tmp_path / "log.txt.rank1").read_text()


def test_the_log_of_another_run_is_put_aside_and_none_is_lost(tmp_path):
    for run in range(3):
        for rank in (0, 1):
            setup_logger(tmp_path, rank, fresh=True).info(f"run {run} of rank {rank}")
            close_logger()
    for rank in (0, 1):
        ending = "" if rank == 0 else ".rank1"
        newest = tmp_path / f"log.txt{ending}"
        earlier = list(tmp_path.glob(f"log_*.txt{ending}"))
        texts = [path.read_text() for path in [*earlier, newest]]
        assert f"run 2 of rank {rank}" in texts[-1]
        assert sorted(text.count(f"of rank {rank}\n") for text in texts) == [1, 1, 1]
    assert len(list(tmp_path.iterdir())) == 6


def test_otherwise_a_log_is_appended_to(tmp_path):
    for run in range(2):
        setup_logger(tmp_path).info(f"run {run}")
        close_logger()
    assert (tmp_path / "log.txt").read_text().count("run ") == 2
    assert len(list(tmp_path.iterdir())) == 1
