"""What writers to tracking services share, with a service that is a dict."""

import json
import threading
import time

import pytest
import torch

from hookline.engine import EventStorage, JSONWriter
from hookline.engine import sender as sender_module
from hookline.engine.writers_remote import RemoteWriter


class Service:
    """Outlives the writers, as a server does."""

    def __init__(self):
        self.runs = {}
        self.log = []
        self.is_down = False
        self.forgets = False
        self.twice = set()


class Writer(RemoteWriter):
    service = "Toy"

    def __init__(self, service, output_dir, **settings):
        super().__init__(output_dir, **settings)
        self.remote = service

    def _open(self, is_known):
        self._answer()
        self.remote.log.append(("open", self.run_id, is_known))
        run = self.remote.runs.setdefault(self.run_id, {})
        return None if self.remote.forgets else {iteration: set(row) for iteration, row in run.items()}

    def _log(self, iteration, scalars, moment):
        self._answer()
        row = self.remote.runs[self.run_id].setdefault(iteration, {})
        self.remote.twice.update((iteration, name) for name in row.keys() & scalars.keys())
        row.update(scalars)

    def _log_picture(self, picture):
        self._answer()
        assert picture.image.dtype.name == "uint8"
        self.remote.runs[self.run_id].setdefault(picture.iteration, {})[picture.name] = picture.image.shape

    def _log_checkpoint(self, path, label):
        self.remote.log.append(("checkpoint", path.name, label))

    def _finish(self, finished):
        self.remote.log.append(("finish", finished))

    def _answer(self):
        if self.remote.is_down:
            raise ConnectionError("down")


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr(sender_module, "RETRY_S", (0.01, 0.02))
    monkeypatch.setattr(sender_module, "LAST_TRY_S", 0.5)
    service = Service()
    yield service
    assert not service.twice


def steps(writers, start, end, *, killed=False, finished=True, restored=None):
    """Train: one scalar every iteration. A killed process does not close its writers."""
    with EventStorage(start) as storage:
        storage.load_state_dict(restored or {})
        for writer in writers:
            writer.begin(start)
        for writer in writers:
            writer.catch_up()
        for storage.iter in range(start, end):
            storage.put_scalar("x", storage.iter / 3, smoothing_hint=False)
            for writer in writers:
                writer.write()
    for writer in writers:
        if killed and isinstance(writer, RemoteWriter):
            writer._sender.close(20.0)  # a test leaves no thread
            continue
        if not killed:
            writer.conclude(finished)
        writer.close()


def both(service, folder, **settings):
    return [JSONWriter(folder / "metrics.json", continued=settings.get("continued", False)),
            Writer(service, folder, **settings)]  # fmt: skip


def rows(folder):
    found = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row.pop("iteration"), {}).update(row)
    return found


def test_a_run_is_what_the_json_lines_say(service, tmp_path):
    steps(both(service, tmp_path), 0, 6)
    (run,) = service.runs.values()
    assert run == rows(tmp_path) == {i: {"x": i / 3} for i in range(6)}
    assert service.log[-1] == ("finish", True)


def test_a_resumed_run_goes_on_without_a_step_twice(service, tmp_path):
    first = both(service, tmp_path)
    steps(first, 0, 9, killed=True)
    second = both(service, tmp_path)
    second[1].load_state_dict(first[1].state_dict())
    steps(second, 5, 12)
    (run,) = service.runs.values()
    assert run == rows(tmp_path)
    assert sorted(run) == list(range(12))


def test_the_identity_is_in_the_folder_too(service, tmp_path):
    """An older checkpoint, or one of a run without this writer, does not know it."""
    steps(both(service, tmp_path), 0, 9, killed=True)
    steps(both(service, tmp_path), 5, 12)
    assert len(service.runs) == 1


def test_the_identity_goes_with_the_checkpoint_into_another_folder(service, tmp_path):
    first = both(service, tmp_path / "a")
    steps(first, 0, 9, killed=True)
    second = both(service, tmp_path / "b")
    second[1].load_state_dict(first[1].state_dict())
    steps(second, 5, 12)
    (run,) = service.runs.values()
    assert sorted(run) == list(range(12))
    assert sorted(rows(tmp_path / "b")) == list(range(5, 12))
    assert (tmp_path / "b" / "run_id.toy").read_text() == (tmp_path / "a" / "run_id.toy").read_text()


def test_killed_before_the_first_checkpoint(service, tmp_path):
    steps(both(service, tmp_path), 0, 3, killed=True)
    steps(both(service, tmp_path, continued=True), 0, 6)
    (run,) = service.runs.values()
    assert sorted(run) == sorted(rows(tmp_path)) == list(range(6))
    assert len((tmp_path / "metrics.json").read_text().splitlines()) == 6


def test_a_fresh_start_is_another_run(service, tmp_path):
    steps(both(service, tmp_path), 0, 6)
    steps(both(service, tmp_path), 0, 3)
    first, second = service.runs.values()
    assert (sorted(first), sorted(second)) == (list(range(6)), list(range(3)))


def test_a_fresh_start_with_the_run_id_of_an_earlier_one_is_told(service, tmp_path, caplog):
    steps(both(service, tmp_path, run_id="mine"), 0, 6)
    steps(both(service, tmp_path, run_id="mine", continued=True), 6, 9)
    assert "has a run" not in caplog.text
    steps(both(service, tmp_path, run_id="mine"), 0, 3)
    assert caplog.text.count("Toy has a run 'mine' already, which is not continued") == 1
    assert "another run_id, or --resume" in caplog.text


def test_a_branch_with_a_run_id_of_its_own_is_known_again(service, tmp_path, caplog):
    trunk = both(service, tmp_path / "trunk")
    steps(trunk, 0, 6)
    for _ in range(2):  # the first one is killed before its first checkpoint
        branch = both(service, tmp_path / "branch", run_id="branch")
        branch[1].load_state_dict(trunk[1].state_dict())
        steps(branch, 3, 9, killed=True)
    assert "has a run" not in caplog.text
    assert sorted(service.runs["branch"]) == list(range(3, 9))


def test_what_a_service_that_was_down_missed_comes_with_the_resume(service, tmp_path, caplog):
    service.is_down = True
    first = both(service, tmp_path)
    steps(first, 0, 6, killed=True)
    assert service.runs == {}
    service.is_down = False
    second = both(service, tmp_path)
    second[1].load_state_dict(first[1].state_dict())
    steps(second, 5, 8)
    (run,) = service.runs.values()
    assert run == rows(tmp_path)
    assert sorted(run) == list(range(8))
    assert caplog.text.count("failed after") == 1


def test_a_service_that_comes_back_gets_what_waited(service, tmp_path):
    service.is_down = True
    writers = both(service, tmp_path)
    timer = threading.Timer(0.3, lambda: setattr(service, "is_down", False))
    timer.start()
    with EventStorage() as storage:
        for writer in writers:
            writer.begin(0)
        for storage.iter in range(10):
            storage.put_scalar("x", 1.0)
            for writer in writers:
                writer.write()
        deadline = time.monotonic() + 20.0
        while not writers[1]._sender.wait(0.1) and time.monotonic() < deadline:  # it returns at once while it fails
            time.sleep(0.01)
        for writer in writers:
            writer.close()
    timer.join()
    assert [sorted(run) for run in service.runs.values()] == [list(range(10))]


def test_a_logger_that_is_added_on_resume_gets_the_whole_curve(service, tmp_path):
    steps([JSONWriter(tmp_path / "metrics.json")], 0, 6)
    steps(both(service, tmp_path), 6, 9)
    (run,) = service.runs.values()
    assert sorted(run) == list(range(9))


def test_where_the_service_cannot_tell_what_it_has_nothing_older_is_sent_again(service, tmp_path):
    first = both(service, tmp_path)
    steps(first, 0, 6)
    service.forgets = True
    steps(both(service, tmp_path), 6, 9)
    (run,) = service.runs.values()
    assert sorted(run) == list(range(9))


def test_what_was_saved_but_not_written_is_caught_up(service, tmp_path):
    steps(both(service, tmp_path), 0, 5, killed=True)
    restored = {"x": {"values": [5 / 3], "iterations": [5], "smoothing_hint": False}}
    steps(both(service, tmp_path), 6, 8, restored=restored)
    (run,) = service.runs.values()
    assert run == rows(tmp_path)
    assert sorted(run) == list(range(8))


def test_pictures_are_sent_once_in_bytes(service, tmp_path):
    (writer,) = [Writer(service, tmp_path)]
    with EventStorage() as storage:
        writer.begin(0)
        storage.put_image("bytes", torch.zeros(3, 4, 6, dtype=torch.uint8))
        storage.put_image("floats", torch.ones(3, 4, 6))
        writer.write()
        writer.write()
        writer.close()
    assert list(service.runs.values()) == [{0: {"bytes": (4, 6, 3), "floats": (4, 6, 3)}}]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (False, []),
        ("last", [("checkpoint", "model_0000009.pth", "model_0000009")]),
        ("best", [("checkpoint", "model_best.pth", "model_best")]),
        ("all", [("checkpoint", f"{name}.pth", name) for name in ("model_0000004", "model_0000009", "model_best")]),
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_checkpoints(service, tmp_path, which, expected, elsewhere):
    run = tmp_path / "run" if elsewhere else tmp_path
    (tmp_path / "model_0000001.pth").touch()  # of the run before the resume
    writer = Writer(service, run, log_checkpoints=which, checkpoint_dir=tmp_path if elsewhere else None)
    with EventStorage(2):
        writer.begin(2)
        (tmp_path / "model_0000004.pth").touch()
        writer.write()
        for name in ("model_0000009", "model_best"):
            (tmp_path / f"{name}.pth").touch()
        (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
        writer.conclude(True)
        writer.close()
    assert [entry for entry in service.log if entry[0] == "checkpoint"] == expected


def test_an_outage_loses_nothing_although_checkpoints_are_looked_for(service, tmp_path):
    writer = Writer(service, tmp_path, log_checkpoints="all")
    with EventStorage() as storage:
        writer.begin(0)
        service.is_down = True
        for storage.iter in range(6):
            storage.put_scalar("x", 1.0)
            writer.write()
        deadline = time.monotonic() + 20.0
        while writer._sender._failures < 10 and len(writer._sender._jobs) and time.monotonic() < deadline:
            time.sleep(0.01)
        service.is_down = False
        while not writer._sender.wait(0.1) and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.close()
    assert [sorted(run) for run in service.runs.values()] == [list(range(6))]


def test_refuses_another_choice_of_checkpoints(service, tmp_path):
    with pytest.raises(ValueError, match="log_checkpoints='newest'"):
        Writer(service, tmp_path, log_checkpoints="newest")


def test_a_read_only_folder_is_no_reason_to_fail(service, tmp_path, caplog):
    (tmp_path / "file").touch()
    writer = Writer(service, tmp_path / "file" / "folder")
    steps([writer], 0, 2)
    assert "identity cannot be kept" in caplog.text
    assert len(service.runs) == 1
