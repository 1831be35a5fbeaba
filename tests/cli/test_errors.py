"""What is printed of an error that ended a run, and with which exit code."""

import copy
import errno
import pickle

import pytest

from hookline.cli.errors import Reporter, report
from hookline.engine.checkpoint_errors import CheckpointError
from hookline.engine.launch import RankFailedError
from hookline.engine.launch_report import note_rank
from hookline.engine.losses import NonFiniteError


def of_rank(error: Exception, rank: int) -> Exception:
    """The error as `launch` raises it again."""
    error.__cause__ = RankFailedError(f"rank {rank} failed:\nTraceback of rank {rank}", rank)
    return error


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (CheckpointError("no such file"), "error: rank 5: no such file"),
        (FloatingPointError("the loss is nan"), "error: rank 5: the loss is nan"),
        (FloatingPointError("rank 5, iteration 3: the loss is nan"), "error: rank 5, iteration 3: the loss is nan"),
        (OSError("train.output_dir='x' cannot be written"), "error: rank 5: train.output_dir='x' cannot be written"),
        (FileNotFoundError(2, "No such file", "x.json"), "error: rank 5: [Errno 2] No such file: 'x.json'"),
        (OSError(errno.EMFILE, "Too many open files"), "error: rank 5 failed:\nTraceback of rank 5"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "error: rank 5 failed:\nTraceback of rank 5"),
    ],
)
def test_the_rank_is_named(error, printed, capsys):
    assert report(of_rank(error, 5)) == 1
    assert capsys.readouterr().err.strip() == printed


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (CheckpointError("no such file"), "error: rank 5: no such file\n"),
        (KeyError("a"), "error: rank 5 failed:\nKeyError: 'a'\n"),
    ],
)
def test_so_is_one_that_this_process_is(error, printed, capsys):
    note_rank(error, 5)
    assert report(error) == 1
    assert capsys.readouterr().err.rstrip("\n") == printed.rstrip("\n")


@pytest.mark.parametrize(
    "error", [NonFiniteError("loss is not finite", 3, of_all_ranks=True), CheckpointError("damaged", of_all_ranks=True)]
)
def test_what_all_ranks_raise_is_nobodys_and_shown_once(error, capsys):
    error = pickle.loads(pickle.dumps(error))  # it is sent between processes
    assert report(of_rank(copy.copy(error), 1)) == 1
    assert capsys.readouterr().err == f"error: {error}\n"
    for rank in (1, 0):
        joined = copy.copy(error)
        note_rank(joined, rank)
        assert report(joined) == 1
        assert capsys.readouterr().err == ("" if rank else f"error: {error}\n")


def test_what_one_rank_alone_finds_not_finite_is_shown_by_it(capsys):
    error = NonFiniteError("loss is not finite", 3)
    note_rank(error, 1)
    assert report(error) == 1
    assert capsys.readouterr().err == "error: rank 1: loss is not finite\n"


def test_each_error_is_reported_once(capsys):
    reporter = Reporter()
    error = CheckpointError("no such file")
    assert (reporter(error), reporter(error), reporter(CheckpointError("another"))) == (1, 1, 1)
    assert capsys.readouterr().err == "error: no such file\nerror: another\n"


def test_of_one_process_the_words_suffice(capsys):
    assert report(OSError("train.output_dir='x' cannot be written")) == 1
    assert capsys.readouterr().err == "error: train.output_dir='x' cannot be written\n"


def test_a_refused_part_of_the_recipe_is_nobodys(capsys):
    error = of_rank(ValueError("lr=-1: expected more than 0"), 5)
    error.add_note("while building optimizer: SGD")
    assert report(error) == 2
    assert capsys.readouterr().err.startswith("error: optimizer.lr=-1: expected")


def test_the_systems_words_without_a_file_come_with_their_traceback(capsys):
    with pytest.raises(OSError, match="Too many") as found:
        raise OSError(errno.EMFILE, "Too many open files")
    assert report(found.value) == 1
    assert "test_errors.py" in capsys.readouterr().err
