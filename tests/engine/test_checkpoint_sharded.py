"""Sharded checkpoints on gloo ranks: exact resumes, other numbers of ranks, kills, damage, full disks."""

import os
import pickle
import shutil

import pytest
import torch

import sharded_runs
from hookline.cli.consolidate import run as consolidate
from hookline.engine import Checkpointer, CheckpointError, UnsafeCheckpointError
from hookline.engine.checkpoint_read import damage_of, read_checkpoint
from hookline.engine.checkpoint_shards import read_parts

SETTINGS = {"optimizer": "AdamW", "clip": "norm"}

SAVES = f"""
SETTINGS = {SETTINGS!r}

def main(rank, folder):
    torch.set_num_threads(1)
    whole = run("fsdp", 12, folder=folder / "run", period=4, **SETTINGS)
    resumed = run("fsdp", 12, resume=folder / "run" / "model_0000007.dcp", **SETTINGS)
    run("ddp", 12, folder=folder / "ddp", period=4, **SETTINGS)
    return {{"whole": whole, "resumed": resumed}}
"""
GOES_ON = f"""
SETTINGS = {SETTINGS!r}

def main(rank, folder):
    torch.set_num_threads(1)
    found = {{"shards": run("fsdp", 12, resume=folder / "at7.dcp", **SETTINGS)}}
    found["file"] = run("fsdp", 12, resume=folder / "ddp" / "model_0000007.pth", **SETTINGS)
    found["again"] = run("fsdp", 12, resume=folder / "at7.pth", **SETTINGS)
    found["loaded"] = run("fsdp", 0, seed=5, load=folder / "ddp" / "model_0000007.pth")
    found["loaded shards"] = run("fsdp", 0, seed=5, load=folder / "at7.dcp")
    return found
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saves")
    ranks = sharded_runs.on_ranks(SAVES, folder)
    shutil.copytree(folder / "run" / "model_0000007.dcp", folder / "at7.dcp")
    return folder, ranks


@pytest.fixture
def run_folder(saved, tmp_path):
    return shutil.copytree(saved[0] / "run", tmp_path / "run")


def assert_close(first, second, tolerance=1e-5):
    later = {i: loss for loss, i in second["losses"]}
    for loss, i in first["losses"]:
        assert loss == pytest.approx(later[i], abs=tolerance, rel=tolerance)
    for name, value in first["weights"].items():
        torch.testing.assert_close(torch.tensor(value), torch.tensor(second["weights"][name]), atol=tolerance, rtol=0)


def test_a_resumed_run_is_bit_equal(saved):
    for rank in saved[1]:
        whole, resumed = rank["whole"], rank["resumed"]
        assert resumed["start"] == 8
        assert resumed["weights"] == whole["weights"]
        assert resumed["losses"] == whole["losses"]  # the history is in the checkpoint
        assert resumed["norms"] == whole["norms"][8:]
        assert whole["files"] == ["last_checkpoint", "model_0000007.dcp", "model_0000011.dcp", "model_final.dcp"]


def test_a_folder_is_whole_and_holds_plain_values(saved):
    folder = saved[0] / "at7.dcp"
    assert sorted(path.name for path in folder.iterdir()) == [".metadata", "__0_0.distcp", "__1_0.distcp", "state.pth"]
    assert damage_of(folder) is None
    content = read_checkpoint(folder)
    assert list(content) == ["model", "iteration", "optimizer", "trainer", "hooks", "meta"]
    assert content["iteration"] == 7
    assert content["meta"]["world_size"] == 2
    assert {type(value) for value in content["model"].values()} == {torch.Tensor}


def test_a_run_goes_on_in_one_process(saved, tmp_path, capsys):
    """From the folder itself, and from the file that it is turned into; both are the same."""
    folder, ranks = saved
    assert consolidate([str(folder / "at7.dcp"), str(tmp_path / "at7.pth")]) == 0
    assert "model, iteration, optimizer, trainer, hooks, meta" in capsys.readouterr().out
    content = torch.load(tmp_path / "at7.pth", weights_only=True)
    assert set(content["optimizer"]["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    from_folder = sharded_runs.run("one", 12, resume=folder / "at7.dcp", **SETTINGS)
    from_file = sharded_runs.run("one", 12, resume=tmp_path / "at7.pth", **SETTINGS)
    torch.set_num_threads(threads)
    assert from_folder == from_file
    assert from_file["start"] == 8
    assert_close(from_file, ranks[0]["whole"])


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_goes_on_on_other_ranks(saved, tmp_path, count):
    """From shards of two ranks, from an ordinary file of two ranks, and from consolidated shards."""
    folder, ranks = saved
    work = tmp_path / "ranks"
    shutil.copytree(folder / "at7.dcp", work / "at7.dcp")
    shutil.copytree(folder / "ddp", work / "ddp")
    assert consolidate([str(folder / "at7.dcp"), str(work / "at7.pth")]) == 0
    found = sharded_runs.on_ranks(GOES_ON, work, count)[0]
    for name in ("shards", "file", "again"):
        assert found[name]["start"] == 8
        assert_close(found[name], ranks[0]["whole"])
    assert found["shards"]["weights"] == found["again"]["weights"]
    if count == 2:
        assert found["shards"]["weights"] == ranks[0]["whole"]["weights"]
    file = torch.load(work / "ddp" / "model_0000007.pth", weights_only=True)["model"]
    assert found["loaded"]["weights"] == {name: value.tolist() for name, value in file.items()}
    assert found["loaded shards"]["weights"] == {
        k: v.tolist() for k, v in read_checkpoint(work / "at7.pth")["model"].items()
    }


def spoil(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: spoil(folder / "__1_0.distcp"), "the checksum of __1_0.distcp is wrong"),
        (lambda folder: (folder / "__0_0.distcp").unlink(), "__0_0.distcp is missing"),
        (lambda folder: os.truncate(folder / ".metadata", 10), ".metadata has 10 bytes"),
        (lambda folder: os.truncate(folder / "state.pth", 99), "zip file"),
        (lambda folder: (folder / "state.pth").unlink(), "state.pth"),
    ],
)
def test_a_damaged_newest_falls_back(run_folder, caplog, harm, words):
    shutil.rmtree(run_folder / "model_final.dcp")
    harm(run_folder / "model_0000011.dcp")
    assert words in damage_of(run_folder / "model_0000011.dcp")
    with caplog.at_level("WARNING"):
        assert Checkpointer(sharded_runs.Net(), run_folder).get_checkpoint_file().endswith("0011.dcp")
        assert sharded_runs.run("one", 0, resume="", folder=run_folder, **SETTINGS)["start"] == 8
    assert words in caplog.text
    assert (run_folder / "model_0000011.dcp.damaged").is_dir()


def test_consolidate_takes_a_run_and_refuses_the_rest(run_folder, tmp_path, capsys):
    target = tmp_path / "out.pth"
    assert consolidate([str(run_folder), str(target)]) == 0
    assert torch.load(target, weights_only=True)["iteration"] == 11
    assert consolidate([str(run_folder), str(target), "--model-only"]) == 0
    assert list(torch.load(target, weights_only=True)) == ["model", "meta"]
    for folder, file, code, words in (
        (tmp_path / "nothing", target, 2, "there is no such folder"),
        (tmp_path, target, 1, "it has none"),
        (run_folder, tmp_path / "out", 2, "ends in .pth"),
    ):
        assert consolidate([str(folder), str(file)]) == code
        assert words in capsys.readouterr().err
    spoil(run_folder / "model_0000011.dcp" / "__0_0.distcp")
    assert consolidate([str(run_folder / "model_0000011.dcp"), str(target)]) == 1
    assert "the checksum of __0_0.distcp is wrong" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/executed",)


def test_metadata_that_refers_to_code_is_not_loaded(run_folder, tmp_path):
    folder = run_folder / "model_final.dcp"
    (folder / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UnsafeCheckpointError, match=r"refers to posix\.system; nothing of it was executed"):
        read_parts(folder, {})


KILLED = f"""
import os, signal
from hookline.engine import checkpoint_sharded

SETTINGS = {SETTINGS!r}

def main(rank, folder):
    torch.set_num_threads(1)
    saves = []
    write, finish = checkpoint_sharded.write_parts, checkpoint_sharded._finish
    def write_or_die(path, shards):
        saves.append(path)
        if WHEN == "writing" and rank == 1 and len(saves) == 2:
            (Path(path) / "__1_0.distcp").write_bytes(b"begun")
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, shards)
    def finish_or_die(*args):
        if WHEN == "finishing" and rank == 0 and len(saves) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        finish(*args)
    checkpoint_sharded.write_parts, checkpoint_sharded._finish = write_or_die, finish_or_die
    run("fsdp", 12, folder=folder / "run", period=4, **SETTINGS)
"""


@pytest.mark.parametrize("when", ["writing", "finishing"])
def test_a_kill_in_a_save_leaves_the_checkpoint_before(saved, tmp_path, when):
    killed = 1 if when == "writing" else 0
    codes = [-9 if rank == killed else 1 for rank in range(2)]
    work = tmp_path / "ranks"
    sharded_runs.on_ranks(f"WHEN = {when!r}\n{KILLED}", work, codes=codes)
    names = sorted(path.name for path in (work / "run").iterdir())
    left = [name for name in names if name.endswith(".filling")]
    assert [name for name in names if name not in left] == ["last_checkpoint", "model_0000003.dcp"]
    assert len(left) == (when == "finishing")  # else rank 0 has cleaned up
    assert damage_of(work / "run" / "model_0000003.dcp") is None
    found = sharded_runs.run("one", 12, resume="", folder=work / "run", **SETTINGS)
    assert found["start"] == 4
    assert not [name for name in found["files"] if name.endswith(".filling")]
    assert_close(found, saved[1][0]["whole"])


FULL = """
import shutil
from hookline.engine import checkpoint_sharded

def main(rank, folder):
    model = create_fully_sharded_model(Net(), "cpu")
    found = []
    real = shutil.disk_usage
    def full(path):
        return real(path)._replace(free=100) if rank == 0 else real(path)
    def broken(path, shards):
        raise OSError(28, "No space left on device")
    for mode in ("warn", "raise"):
        checkpointer = ShardedCheckpointer(model, folder / "run", on_save_error=mode)
        for module, name, stand_in in ((shutil, "disk_usage", full), (torch, "save", broken)):
            before = getattr(module, name)
            setattr(module, name, stand_in if name == "disk_usage" or rank == 1 else before)
            try:
                checkpointer.save("model_0000001", iteration=1)
                found.append("")
            except Exception as error:
                assert error.of_all_ranks
                found.append(f"{type(error).__name__}: {error}")
            finally:
                setattr(module, name, before)
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.save("model_0000001", iteration=2)
    found.append(str(ShardedCheckpointer(model, folder / "run").resume()))
    return [found, sorted(path.name for path in (folder / "run").iterdir())]
"""


def test_a_full_disk_is_an_error_on_all_ranks_and_leaves_nothing(tmp_path):
    ranks = sharded_runs.on_ranks(FULL, tmp_path / "ranks")
    for found, files in ranks:
        assert files == ["last_checkpoint", "model_0000001.dcp"]
        assert found[:2] == ["", ""]
        assert "CheckpointError: could not write" in found[2]
        assert "the parts of all ranks need" in found[2]
        assert "No space left on device" in found[3]
        assert "rank 1" in found[3]
        assert found[4] == "2"


APART = """
from hookline.engine import checkpoint_sharded

def main(rank, folder):
    model = create_fully_sharded_model(Net(), "cpu")
    found = []
    broadcast = checkpoint_sharded.broadcast
    if rank == 1:  # on another machine the same name is another place
        checkpoint_sharded.broadcast = lambda value: broadcast(value).replace("/machine0/", "/machine1/")
    for mode in ("warn", "raise"):
        checkpointer = ShardedCheckpointer(model, folder / f"machine{rank}" / "run", on_save_error=mode)
        try:
            checkpointer.save("model_0000001", iteration=1)
            found.append("")
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found
"""


def test_a_folder_that_is_not_shared_is_an_error_before_a_byte_is_written(tmp_path):
    ranks = sharded_runs.on_ranks(APART, tmp_path / "ranks")
    for silent, error in ranks:
        assert silent == ""
        assert error.startswith("CheckpointError: could not write")
        assert (
            "which rank 0 made: the folder of the run (train.output_dir) must be one that all machines share" in error
        )
    assert [*(tmp_path / "ranks" / "machine0" / "run").iterdir()] == []
    assert not (tmp_path / "ranks" / "machine1").exists()


AMISS = """
from hookline.engine import checkpoint_sharded

def main(rank, folder):
    model = create_fully_sharded_model(Net(), "cpu")
    found = []
    real = checkpoint_sharded.collect_state
    def collect(*args):
        if rank == 1:
            raise torch.cuda.OutOfMemoryError("no memory")
        return real(*args)
    checkpoint_sharded.collect_state = collect
    for mode in ("warn", "raise"):
        try:
            ShardedCheckpointer(model, folder / "run", on_save_error=mode).save("model_0000001", iteration=1)
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    checkpoint_sharded.collect_state = real
    checkpointer = ShardedCheckpointer(model, folder / "run")
    checkpointer.save("model_0000001", iteration=1)  # all ranks are in step
    return [*found, str(checkpointer.last_saved_iteration)]
"""


def test_another_error_of_one_rank_is_raised_by_all(tmp_path):
    first, second = sharded_runs.on_ranks(AMISS, tmp_path / "ranks")
    assert first == ["RuntimeError: rank 1: OutOfMemoryError: no memory"] * 2 + ["1"]
    assert second == ["OutOfMemoryError: no memory"] * 2 + ["1"]


def test_refusals():
    from hookline.engine.checkpoint_sharded import ShardedCheckpointer

    with pytest.raises(ValueError, match="not fully sharded: use Checkpointer"):
        ShardedCheckpointer(sharded_runs.Net(), "")
    with pytest.raises(ValueError, match="asynchronous=True"):
        ShardedCheckpointer(sharded_runs.Net(), "", asynchronous=True)


def test_another_folder_is_no_checkpoint(tmp_path):
    (tmp_path / "some.dcp").mkdir()
    with pytest.raises(CheckpointError, match=r"state\.pth"):
        read_checkpoint(tmp_path / "some.dcp")
    (tmp_path / "plain").mkdir()
    with pytest.raises(CheckpointError, match="is a folder, expected a checkpoint file"):
        read_checkpoint(tmp_path / "plain")
