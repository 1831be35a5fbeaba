"""The command line of a training: what it understands, what it refuses, and in which time."""

import os
import subprocess
import sys

import pytest

from hookline.cli.main import main as hookline
from hookline.cli.train import main, parse_arguments


def test_settings_may_stand_between_flags():
    args = parse_arguments(["--config-file", "r.py", "a=1", "--eval-only", "b.c=[1, 2]", "--cfg-options", "d=x"])
    assert args.opts == ["a=1", "b.c=[1, 2]", "d=x"]
    assert args.eval_only


def test_resume_takes_a_file_but_no_setting(tmp_path):
    assert parse_arguments(["--config-file", "r", "--resume"]).resume is True
    assert parse_arguments(["--config-file", "r"]).resume is False
    args = parse_arguments(["--config-file", "r", "--resume", "train.max_iter=3"])
    assert (args.resume, args.opts) == (True, ["train.max_iter=3"])
    args = parse_arguments(["--config-file", "r", "train.max_iter=9", "--resume", "train.max_iter=3", "a=1"])
    assert (args.resume, args.opts) == (True, ["train.max_iter=9", "train.max_iter=3", "a=1"])
    file = tmp_path / "a=b.pth"
    file.write_bytes(b"")
    assert parse_arguments(["--config-file", "r", "--resume", str(file)]).resume == str(file)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--config-file", "r", "--num-gpus", "2", "--num-procs", "2"], "exclude each other"),
        (["--config-file", "r", "--num-procs", "-1"], "--num-procs -1: expected at least 1"),
        (["--config-file", "r", "--num-procs", "0"], "--num-procs 0: expected at least 1"),
        (["--config-file", "r", "--eval-only", "--resume"], "--eval-only"),
        (["--config-file", "r", "--out", "x.txt"], "x.txt"),
        (["--config-file", "r", "a=1", "--nosuch"], "--nosuch"),
        (["--config-file", "r", "--num-gpu", "2"], "did you mean '--num-gpus'"),
        (["--config-file", "r", "--num_procs=2"], "did you mean '--num-procs'"),
        ([], "--config-file"),
    ],
)
def test_a_wrong_call_ends_with_code_2(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(argv)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--config-file", "balloon/mask_rcnn_tyni.py"], "balloon/mask_rcnn_tiny"),
        (["--config-file", "balloon/mask_rcnn_tiny.py", "train.max_itre=3"], "max_iter"),
        (["--config-file", "balloon/mask_rcnn_tiny.py", "train.max_iter=-1"], "train.max_iter=-1"),
        (["--config-file", "balloon/mask_rcnn_tiny.py", "train.accumulate=0"], "train.accumulate=0"),
        (["--config-file", "balloon/mask_rcnn_tiny.py", "train.max_epochs=3"], "give one"),
        (["--config-file", "balloon/mask_rcnn_tiny.py", "+model.proposal_generator.nosuch=1"], "nosuch"),
    ],
)
def test_a_wrong_recipe_ends_with_code_2_and_names_the_key(argv, words, capsys):
    assert main(argv) == 2
    assert words in capsys.readouterr().err


def test_a_wrong_call_is_answered_in_one_line_by_the_name_that_was_called(capsys):
    with pytest.raises(SystemExit):
        hookline(["train", "--config-file", "r", "--num_gpus=2"])
    said = capsys.readouterr().err
    assert said.startswith("hookline train: error: unrecognized arguments: --num_gpus=2; did you mean '--num-gpus'?")
    assert said.count("\n") == 1


def test_a_batch_that_the_processes_cannot_share_is_refused_before_they_start(capsys):
    settings = ["train.device=cpu", "dataloader.train.total_batch_size=4"]
    assert main(["--config-file", "balloon/mask_rcnn_tiny.py", "--num-procs", "3", *settings]) == 2
    said = capsys.readouterr().err
    assert said.endswith("total_batch_size=4 cannot be divided among 3 processes; nearest: 3 or 6\n")
    assert "rank" not in said


@pytest.mark.parametrize(("given", "level"), [(None, "ERROR"), ("INFO", "INFO")])
def test_torch_is_kept_from_writing_stacks_unless_that_is_asked_for(monkeypatch, given, level):
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL", raising=False)
    if given:
        monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", given)
    seen = []
    monkeypatch.setattr("hookline.cli.train._launch", lambda args: seen.append(os.environ["TORCH_CPP_LOG_LEVEL"]) or 0)
    assert main(["--config-file", "r"]) == 0
    assert seen == [level]
    assert os.environ.get("TORCH_CPP_LOG_LEVEL") == given


def test_help_does_not_import_torch():
    code = (
        "import sys, contextlib, io\n"
        "from hookline.cli.train import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    main(['--help'])\n"
        "assert '--num-gpus' in out.getvalue()\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
