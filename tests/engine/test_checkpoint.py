"""The checkpointer: what it writes, what it reads back, and what it refuses."""

import errno
import os
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import hookline.engine.checkpoint as checkpoint_module
from hookline.engine.checkpoint import Checkpointer, CheckpointError, DetectionCheckpointer, UnsafeCheckpointError
from hookline.engine.checkpoint_write import write_checkpoint


class Part:
    """Anything with a state."""

    def __init__(self, **state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


class Trainer(Part):
    """What the trainer looks like from here."""

    def __init__(self, model, iteration=0, lr=0.1):
        super().__init__(seed=3)
        self.iter = iteration
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        self.hooks = Part(best=0.5)

    def checkpointables(self):
        return {"optimizer": self.optimizer, "trainer": self, "hooks": self.hooks}


def make(width: int = 3, seed: int = 0) -> tuple[nn.Module, Trainer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
    trainer = Trainer(model)
    model(torch.randn(8, 2)).sum().backward()
    trainer.optimizer.step()
    return model, trainer


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(autouse=True)
def compile_cache(tmp_path_factory, monkeypatch):
    """The first optimizer of a process imports torch's compiler, which sets this variable for good."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp()))


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def asynchronous(request):
    return request.param


def test_the_file_is_plain_and_complete(tmp_path, asynchronous):
    model, trainer = make()
    checkpointer = Checkpointer(model, tmp_path, trainer=trainer, asynchronous=asynchronous)
    checkpointer.save("model_0000019", iteration=19, note="x")
    checkpointer.wait()
    content = torch.load(tmp_path / "model_0000019.pth", weights_only=True)
    assert set(content) == {"model", "optimizer", "iteration", "trainer", "hooks", "meta"}
    assert content["iteration"] == 19
    assert content["hooks"] == {"best": 0.5}
    assert content["trainer"] == {"seed": 3}
    assert list(content["model"]) == list(model.state_dict())
    assert content["model"]._metadata == model.state_dict()._metadata
    assert content["meta"]["note"] == "x"
    assert {"hookline", "torch", "time", "world_size"} <= set(content["meta"])
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000019.pth"
    assert names(tmp_path) == ["last_checkpoint", "model_0000019.pth"]
    assert checkpointer.last_save_s >= checkpointer.last_block_s * 0.5 > 0
    assert checkpointer.last_saved_iteration == 19


def test_resume_restores_everything(tmp_path, asynchronous):
    model, trainer = make()
    trainer.hooks.state = {"best": 0.75}
    first = Checkpointer(model, tmp_path, trainer=trainer, asynchronous=asynchronous)
    first.save("model_0000004", iteration=4)
    first.wait()
    other, second = make(seed=1)
    checkpointer = Checkpointer(other, tmp_path, trainer=second)
    assert not equal(model, other)
    assert checkpointer.resume() == 4
    assert equal(model, other)
    assert second.hooks.state == {"best": 0.75}
    assert torch.equal(
        trainer.optimizer.state_dict()["state"][0]["momentum_buffer"],
        second.optimizer.state_dict()["state"][0]["momentum_buffer"],
    )
    assert checkpointer.report.is_exact
    rest = Checkpointer(other, tmp_path, trainer=second).resume_or_load("", resume=True)
    assert rest["iteration"] == 4
    assert set(rest) == {"iteration", "meta"}


def test_an_asynchronous_save_holds_the_values_of_its_moment(tmp_path, monkeypatch):
    model, trainer = make()
    gate, real = threading.Event(), checkpoint_module.write_checkpoint
    monkeypatch.setattr(checkpoint_module, "write_checkpoint", lambda *a: (gate.wait(10), real(*a)))
    checkpointer = Checkpointer(model, tmp_path, trainer=trainer, asynchronous=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    checkpointer.save("a", iteration=1)
    with torch.no_grad():
        for param in model.parameters():
            param.add_(1)
    trainer.hooks.state["best"] = 9.0
    assert names(tmp_path) == []
    gate.set()
    checkpointer.wait()
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert all(torch.equal(content["model"][name], value) for name, value in before.items())
    assert content["hooks"] == {"best": 0.5}


def test_the_iteration_is_the_trainers_by_default(tmp_path):
    model, trainer = make()
    trainer.iter = 7
    Checkpointer(model, tmp_path, trainer=trainer).save("a")
    assert torch.load(tmp_path / "a.pth", weights_only=True)["iteration"] == 7
    Checkpointer(model, tmp_path).save("b")
    assert "iteration" not in torch.load(tmp_path / "b.pth", weights_only=True)


def test_a_slim_file_is_apart(tmp_path):
    model, trainer = make()
    checkpointer = Checkpointer(model, tmp_path, trainer=trainer)
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.save("slim", iteration=5, save_optimizer=False)
    assert set(torch.load(tmp_path / "slim.pth", weights_only=True)) == {"model", "iteration", "meta"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert checkpointer.last_saved_iteration == 1
    assert checkpointer.resume() == 1


def test_retention_survives_a_restart(tmp_path, asynchronous):
    model, trainer = make()
    for start in (0, 3):
        checkpointer = Checkpointer(model, tmp_path, trainer=trainer, asynchronous=asynchronous)
        checkpointer.max_to_keep = 2
        for iteration in range(start, start + 3):
            checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
            checkpointer.save("model_best", iteration=iteration)
        checkpointer.wait()
    checkpointer.save("model_final", iteration=5)
    checkpointer.wait()
    expected = ["last_checkpoint", "model_0000004.pth", "model_0000005.pth", "model_best.pth", "model_final.pth"]
    assert names(tmp_path) == expected


def test_leftovers_of_a_killed_writer_go_at_the_start(tmp_path):
    leftover = tmp_path / ".model_0000001.pth.4242.00ff00ff.tmp"
    leftover.write_bytes(b"half")
    model, _ = make()
    Checkpointer(model, tmp_path, save_to_disk=False)
    assert leftover.exists()
    Checkpointer(model, tmp_path)
    assert not leftover.exists()


def test_the_newest_whole_file_is_resumed(tmp_path, caplog):
    model, trainer = make()
    checkpointer = Checkpointer(model, tmp_path, trainer=trainer)
    for iteration in (1, 2, 3):
        trainer.hooks.state = {"best": float(iteration)}
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    data = (tmp_path / "model_0000003.pth").read_bytes()
    weight = model[0].weight.detach().numpy().tobytes()
    (tmp_path / "model_0000003.pth").write_bytes(data.replace(weight, weight[:-1] + b"\x7e"))
    (tmp_path / "last_checkpoint").unlink()
    assert checkpointer.has_checkpoint()
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000003.pth")
    assert checkpointer.resume() == 2
    assert trainer.hooks.state == {"best": 2.0}
    assert "model_0000003.pth.damaged" in names(tmp_path)
    assert "model_0000003.pth" in caplog.text


def test_nothing_to_resume_is_a_fresh_start(tmp_path):
    model, trainer = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for folder in (tmp_path, tmp_path / "none", ""):
        checkpointer = Checkpointer(model, folder, trainer=trainer)
        assert not checkpointer.has_checkpoint()
        assert checkpointer.resume() == -1
        assert checkpointer.resume_or_load("") == {}
        assert checkpointer.get_checkpoint_file() == ""
    (tmp_path / "model_0000001.pth").write_bytes(b"")
    assert Checkpointer(model, tmp_path, trainer=trainer).resume() == -1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_resume_is_strict_and_changes_nothing_when_it_fails(tmp_path):
    model, trainer = make()
    Checkpointer(model, tmp_path / "full", trainer=trainer).save("a", iteration=1)
    Checkpointer(model, tmp_path / "bare").save("a", iteration=1)
    other, second = make(width=4)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"the model is another one") as error:
        Checkpointer(other, tmp_path / "full", trainer=second).resume()
    assert "[3, 2] in the file, [4, 2] in the model" in str(error.value)
    assert "--load-from" in str(error.value)
    with pytest.raises(CheckpointError, match=r"no state of 'optimizer', which the run has"):
        Checkpointer(model, tmp_path / "bare", trainer=trainer).resume()
    with pytest.raises(CheckpointError, match=r"has a state of 'optimizer', which the run lacks"):
        Checkpointer(model, tmp_path / "full", scaler=Part()).resume()
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert Checkpointer(model, tmp_path / "full").resume() == 1  # a model alone, for evaluation


def test_hooks_may_start_fresh(tmp_path, caplog):
    model, trainer = make()
    Checkpointer(model, tmp_path, optimizer=trainer.optimizer).save("a", iteration=1)
    assert Checkpointer(model, tmp_path, trainer=trainer).resume() == 1
    assert "no state of hooks: it starts fresh" in caplog.text


def test_an_optimizer_that_does_not_fit_is_named(tmp_path):
    model, trainer = make()
    Checkpointer(model, tmp_path, trainer=trainer).save("a", iteration=1)
    fewer = torch.optim.SGD(list(model.parameters())[:2], lr=0.1)
    with pytest.raises(CheckpointError, match="it is for 6 parameters, the run's optimizer has 2"):
        Checkpointer(model, tmp_path, optimizer=fewer, trainer=Part(), hooks=Part()).resume()
    turned = torch.optim.SGD(list(model.parameters())[::-1], lr=0.1, momentum=0.9)
    with pytest.raises(CheckpointError, match=r"momentum_buffer of parameter 0 is \[3, 2\], the parameter \[1\]"):
        Checkpointer(model, tmp_path, optimizer=turned, trainer=Part(), hooks=Part()).resume()


def test_load_is_lenient_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    model, trainer = make(width=3)
    Checkpointer(model, tmp_path, trainer=trainer).save("a", iteration=41)
    other, second = make(width=3, seed=1)
    other[2] = nn.Linear(3, 5)
    state = second.hooks.state
    checkpointer = Checkpointer(other, tmp_path / "new", trainer=second)
    rest = checkpointer.load(tmp_path / "a.pth", checkpointables=[])
    assert torch.equal(other[0].weight, model[0].weight)
    assert checkpointer.report.other_shape == {"2.weight": ((1, 3), (5, 3)), "2.bias": ((1,), (5,))}
    assert "[1, 3] in the file, [5, 3] in the model" in caplog.text
    assert rest["iteration"] == 41
    assert "optimizer" in rest
    assert second.hooks.state is state
    assert "iteration" not in checkpointer.resume_or_load(str(tmp_path / "a.pth"), resume=True)
    with pytest.raises(CheckpointError, match="is of another model"):
        checkpointer.load(tmp_path / "a.pth", checkpointables=[], strict=True)


def test_load_takes_other_parts_where_the_file_has_them(tmp_path, caplog):
    model, trainer = make()
    Checkpointer(model, tmp_path, trainer=trainer).save("a", iteration=1)
    ema = Part(x=1)
    other, second = make(seed=1)
    second.hooks.state = {}
    Checkpointer(other, trainer=second, ema=ema).load(tmp_path / "a.pth")
    assert second.hooks.state == {"best": 0.5}
    assert ema.state == {"x": 1}
    assert "no state of ema" in caplog.text


def test_a_checkpoint_of_another_model_is_an_error(tmp_path):
    Checkpointer(nn.ModuleDict({"text": nn.Linear(7, 7)}), tmp_path).save("a")
    with pytest.raises(CheckpointError, match=r"a\.pth is of another model, not one of its values fits"):
        Checkpointer(make()[0]).load(tmp_path / "a.pth")


def test_a_part_of_the_model_matches_by_suffix(tmp_path):
    backbone = nn.ModuleDict({"stem": nn.Linear(2, 2)})
    torch.save(backbone.state_dict(), tmp_path / "backbone.pth")
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"stem": nn.Linear(2, 2)}), "head": nn.Linear(2, 2)})
    checkpointer = Checkpointer(model)
    checkpointer.load(tmp_path / "backbone.pth")
    assert torch.equal(model["backbone"]["stem"].weight, backbone["stem"].weight)
    assert checkpointer.report.missing == ["head.weight", "head.bias"]


def test_zoo_files_and_converters(tmp_path):
    import pickle

    model = nn.ModuleDict({"stem": nn.Linear(2, 2)})
    data = {"model": {"conv1_w": np.full((2, 2), 5, np.float32)}, "__author__": "zoo"}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(data))
    rename = {"conv1_w": "stem.weight"}
    converter = lambda state: {rename.get(name, name): value for name, value in state.items()}  # noqa: E731
    Checkpointer(model, converters=[converter]).load(tmp_path / "zoo.pkl")
    assert model["stem"].weight.sum() == 20


def test_wrapped_models_have_plain_names(tmp_path):
    model, trainer = make()
    Checkpointer(nn.DataParallel(model), tmp_path, trainer=trainer).save("a", iteration=1)
    assert list(torch.load(tmp_path / "a.pth", weights_only=True)["model"]) == list(model.state_dict())
    other, second = make(seed=1)
    assert Checkpointer(nn.DataParallel(other), tmp_path, trainer=second).resume() == 1
    assert equal(model, other)
    torch.save({"model": nn.DataParallel(model).state_dict()}, tmp_path / "wrapped.pth")
    third, _ = make(seed=2)
    Checkpointer(third).load(tmp_path / "wrapped.pth")
    assert equal(model, third)


def test_a_file_with_code_is_refused_on_every_way(tmp_path):
    model, trainer = make()
    trace = tmp_path / "ran"
    torch.save({"model": {}, "x": SimpleNamespace(a=os.system)}, tmp_path / "model_0000001.pth")
    checkpointer = Checkpointer(model, tmp_path, trainer=trainer)
    for load in (checkpointer.resume, lambda: checkpointer.load(tmp_path / "model_0000001.pth")):
        with pytest.raises(UnsafeCheckpointError, match="executed"):
            load()
    assert not trace.exists()


def test_values_that_are_not_plain_are_named(tmp_path, asynchronous):
    model, trainer = make()
    trainer.hooks.state = {"BestCheckpointer": {"value": np.float64(1)}}
    checkpointer = Checkpointer(model, tmp_path, trainer=trainer, asynchronous=asynchronous, on_save_error="warn")
    with pytest.raises(CheckpointError, match=r"hooks\.BestCheckpointer\.value is a numpy\.float64"):
        checkpointer.save("a", iteration=1)
    with pytest.raises(CheckpointError, match=r"meta\.config is a "):
        checkpointer.collect(1, False, {"config": object()})
    assert names(tmp_path) == []


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_full_disk(tmp_path, monkeypatch, caplog, asynchronous, moment):
    model, trainer = make()
    checkpointer = Checkpointer(model, tmp_path, trainer=trainer, asynchronous=asynchronous)
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.wait()
    good = (tmp_path / "model_0000001.pth").read_bytes()

    def no_space(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if moment == "before":
            usage = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
            patch.setattr(shutil, "disk_usage", lambda path: usage)
        else:
            patch.setattr(os, "fsync", no_space)

        def save() -> None:
            checkpointer.save("model_0000002", iteration=2)
            checkpointer.wait()

        with pytest.raises(CheckpointError, match=r"could not write .*model_0000002\.pth.*MB"):
            save()
        checkpointer.on_save_error = "warn"
        save()
        assert "training goes on" in caplog.text
    assert names(tmp_path) == ["last_checkpoint", "model_0000001.pth"]
    assert (tmp_path / "model_0000001.pth").read_bytes() == good
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    checkpointer.save("model_0000003", iteration=3)
    checkpointer.wait()
    assert checkpointer.resume() == 3


def test_a_failed_asynchronous_save_is_raised_by_the_next_one(tmp_path):
    model, trainer = make()
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    checkpointer = Checkpointer(model, blocked, trainer=trainer, asynchronous=True)
    checkpointer.save("a", iteration=1)
    with pytest.raises(CheckpointError, match=r"could not write .*a\.pth"):
        checkpointer.save("b", iteration=2)
    checkpointer.wait()


def test_an_error_while_saving_keeps_the_older_file_of_that_name(tmp_path, monkeypatch):
    model, trainer = make()
    checkpointer = Checkpointer(model, tmp_path, trainer=trainer)
    checkpointer.save("model_best", iteration=1)
    real = torch.save

    def fails_half_way(content, file):
        file.write(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", fails_half_way)
    with pytest.raises(CheckpointError, match="unexpected pos"):
        checkpointer.save("model_best", iteration=2)
    monkeypatch.setattr(torch, "save", real)
    assert names(tmp_path) == ["last_checkpoint", "model_best.pth"]
    assert checkpointer.resume() == 1


def test_checksums_are_stored_whatever_the_process_has_set(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        write_checkpoint(tmp_path / "a.pth", {"model": {"w": torch.ones(100)}})
        assert torch.serialization.get_crc32_options() is False
    finally:
        torch.serialization.set_crc32_options(True)
    data = bytearray((tmp_path / "a.pth").read_bytes())
    position = bytes(data).index(torch.ones(100).numpy().tobytes())
    data[position + 30] ^= 4
    (tmp_path / "a.pth").write_bytes(data)
    assert checkpoint_module.CheckpointFolder(tmp_path).newest_whole() is None


def test_no_folder_or_no_permission_means_no_file(tmp_path):
    model, trainer = make()
    Checkpointer(model, trainer=trainer).save("a", iteration=1)
    Checkpointer(model, tmp_path, save_to_disk=False, trainer=trainer).save("a", iteration=1)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden"])
def test_odd_names_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="checkpoint name"):
        Checkpointer(make()[0], tmp_path).save(name)


def test_other_refusals(tmp_path):
    model, trainer = make()
    with pytest.raises(ValueError, match="max_to_keep=0"):
        Checkpointer(model, max_to_keep=0)
    with pytest.raises(ValueError, match="expected 'raise' or 'warn'"):
        Checkpointer(model, on_save_error="ignore")
    checkpointer = Checkpointer(model, trainer=trainer)
    for key in ("trainer", "model", "iteration"):
        with pytest.raises(KeyError, match="is taken"):
            checkpointer.add_checkpointable(key, Part())
    checkpointer.add_checkpointable("ema", Part())
    assert set(checkpointer.checkpointables) == {"trainer", "ema"}


def test_detectron2s_names(tmp_path):
    assert DetectionCheckpointer is Checkpointer
    model, trainer = make()
    checkpointer = DetectionCheckpointer(model, str(tmp_path), trainer=trainer)
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.save("model_0000002", iteration=2)
    checkpointer.tag_last_checkpoint("model_0000001.pth")
    assert checkpointer.get_all_checkpoint_files()[0].endswith("model_0000001.pth")
    assert checkpointer.resume() == 1
    assert checkpointer.resume(tmp_path / "model_0000002.pth") == 2
