import json
import logging
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from hookline.engine import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    writers_tensorboard,
)
from hookline.engine import writers as writers_module


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def put(storage, iteration, loss=None):
    storage.iter = iteration
    storage.put_scalar("total_loss", float(iteration) if loss is None else loss)
    storage.put_scalar("lr", 0.01, smoothing_hint=False)


class TestCommonMetricPrinter:
    def line(self, caplog, printer, storage):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            printer.write()
        return caplog.messages[0] if caplog.messages else None

    def test_the_line_is_detectron2s(self, caplog, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 123 * 2**20)
        with EventStorage() as storage:
            for i in range(20):
                storage.iter = i
                storage.put_scalars(total_loss=2.0, loss_cls=1.5, grad_norm=0.3, other=1.0, time=0.5, data_time=0.25)
                storage.put_scalar("lr", 0.0025, smoothing_hint=False)
            text = self.line(caplog, CommonMetricPrinter(100), storage)
        assert text == (
            " eta: 0:00:40  iter: 19  total_loss: 2  loss_cls: 1.5  grad_norm: 0.3  time: 0.5000  last_time: 0.5000  "
            "data_time: 0.2500  last_data_time: 0.2500  lr: 0.0025  max_mem: 123M"
        )
        assert storage.latest()["eta_seconds"] == (40.0, 19)

    def test_what_is_not_known_is_left_out(self, caplog):
        with EventStorage() as storage:
            printer = CommonMetricPrinter()
            assert self.line(caplog, printer, storage) == " iter: 0  lr: N/A"

    def test_remaining_time_without_a_timer(self, caplog):
        with EventStorage() as storage:
            printer = CommonMetricPrinter(1000)
            assert "eta" not in self.line(caplog, printer, storage)
            storage.iter = 20
            assert re.match(r" eta: \d+:\d\d:\d\d  iter: 20", self.line(caplog, printer, storage))

    def test_silent_after_the_last_step(self, caplog):
        with EventStorage(100) as storage:
            assert self.line(caplog, CommonMetricPrinter(100), storage) is None

    def test_losses_are_medians(self, caplog):
        with EventStorage() as storage:
            for i in range(50):
                put(storage, i)
            assert "total_loss: 39.5 " in self.line(caplog, CommonMetricPrinter(), storage)
            assert "total_loss: 47 " in self.line(caplog, CommonMetricPrinter(window_size=5), storage)


class TestJSONWriter:
    def test_one_line_for_each_iteration_with_news(self, tmp_path):
        path = tmp_path / "metrics.json"
        writer = JSONWriter(path)
        with EventStorage() as storage:
            storage.put_scalar("AP", 40.0, smoothing_hint=False, cur_iter=7)
            put(storage, 19, loss=1.5)
            writer.write()
            writer.write()
            put(storage, 39, loss=2.5)
            writer.write()
        writer.close()
        assert lines(path) == [
            {"iteration": 7, "AP": 40.0},
            {"iteration": 19, "total_loss": 1.5, "lr": 0.01},
            {"iteration": 39, "total_loss": 2.5, "lr": 0.01},
        ]

    def test_nothing_measured_makes_no_file(self, tmp_path):
        writer = JSONWriter(tmp_path / "metrics.json")
        with EventStorage():
            writer.write()
        writer.close()
        assert not list(tmp_path.iterdir())

    def test_values_are_exact(self, tmp_path):
        writer = JSONWriter(tmp_path / "m.json")
        value = 0.1 + 0.2
        with EventStorage() as storage:
            storage.put_scalar("x", value)
            writer.write()
        writer.close()
        assert lines(tmp_path / "m.json")[0]["x"] == value

    def written(self, path, iterations):
        path.write_text("".join(json.dumps({"iteration": i, "x": 1}) + "\n" for i in iterations))

    def test_resume_cuts_what_comes_again(self, tmp_path):
        path = tmp_path / "metrics.json"
        self.written(path, [19, 39, 59, 60])
        writer = JSONWriter(path)
        writer.begin(40)
        with EventStorage(40) as storage:
            storage.load_state_dict({"x": {"values": [1.0], "iterations": [39], "smoothing_hint": True}})
            writer.write()
            put(storage, 59)
            writer.write()
        writer.close()
        assert [line["iteration"] for line in lines(path)] == [19, 39, 59]

    def test_a_metric_that_was_saved_but_not_written_is_not_lost(self, tmp_path):
        """Killed at 30 after a checkpoint at 25: what was measured at 22 had not been written."""
        path = tmp_path / "metrics.json"
        self.written(path, [19])
        writer = JSONWriter(path)
        writer.begin(26)
        with EventStorage(26) as storage:
            storage.load_state_dict({"AP": {"values": [5.0], "iterations": [22], "smoothing_hint": False}})
            put(storage, 39)
            writer.write()
        writer.close()
        assert [line["iteration"] for line in lines(path)] == [19, 22, 39]

    def test_a_half_written_line_is_cut(self, tmp_path):
        path = tmp_path / "metrics.json"
        self.written(path, [19, 39])
        with path.open("a") as file:
            file.write('{"iteration": 59, "to')
        JSONWriter(path).begin(60)
        assert [line["iteration"] for line in lines(path)] == [19, 39]

    def test_an_earlier_run_in_the_same_file_stays(self, tmp_path):
        path = tmp_path / "metrics.json"
        self.written(path, [19, 39, 59, 19, 39, 59])
        with path.open("a") as file:
            file.write("a remark\n")
        JSONWriter(path).begin(40)
        assert [line["iteration"] for line in lines(path)] == [19, 39, 59, 19, 39]

    def test_a_whole_line_without_its_end_is_cut(self, tmp_path):
        path = tmp_path / "metrics.json"
        path.write_text('{"iteration": 19}\n{"iteration": 39}')
        JSONWriter(path).begin(60)
        assert path.read_text() == '{"iteration": 19}\n'

    def test_a_fresh_start_keeps_what_is_there(self, tmp_path):
        path = tmp_path / "metrics.json"
        self.written(path, [19, 39])
        JSONWriter(path).begin(0)
        assert len(lines(path)) == 2

    def test_a_new_file_on_resume_holds_new_steps_only(self, tmp_path):
        writer = JSONWriter(tmp_path / "new.json")
        with EventStorage(20) as storage:
            storage.load_state_dict({"x": {"values": [1.0], "iterations": [19], "smoothing_hint": True}})
            writer.begin(20)
            writer.write()
        assert not (tmp_path / "new.json").exists()

    def test_what_was_measured_late_for_the_last_written_iteration_is_added(self, tmp_path):
        """An evaluation that a suspension had cut short is made up for under its own iteration."""
        path = tmp_path / "metrics.json"
        self.written(path, [19])
        writer = JSONWriter(path)
        with EventStorage(20) as storage:
            storage.load_state_dict({"x": {"values": [1.0], "iterations": [19], "smoothing_hint": True}})
            writer.begin(20)
            storage.put_scalar("AP", 5.0, smoothing_hint=False, cur_iter=19)
            writer.write()
            writer.write()
        writer.close()
        assert lines(path) == [{"iteration": 19, "x": 1}, {"iteration": 19, "AP": 5.0}]

    def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(self, tmp_path):
        path = tmp_path / "metrics.json"
        self.written(path, [19, 39, 19])
        JSONWriter(path, continued=True).begin(0)
        assert [line["iteration"] for line in lines(path)] == [19, 39]

    def test_lines_that_could_not_be_written_come_with_the_next_ones(self, tmp_path):
        path = tmp_path / "metrics.json"
        writer = JSONWriter(path)

        class Full:
            """Takes half of what is written, as a disk does that runs full."""

            def __init__(self, file):
                self.file = file

            def __getattr__(self, name):
                return getattr(self.file, name)

            def write(self, text):
                self.file.write(text[: len(text) // 2])
                self.file.flush()
                raise OSError(28, "No space left on device")

        with EventStorage() as storage:
            put(storage, 19)
            writer.write()
            writer._file = Full(writer._file)
            for iteration in (39, 59):
                put(storage, iteration)
                if iteration == 39:
                    with pytest.raises(OSError, match="No space"):
                        writer.write()
                else:
                    writer.write()
        writer.close()
        assert [line["iteration"] for line in lines(path)] == [19, 39, 59]


class TestTensorboardXWriter:
    def read(self, folder):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0})
        events.Reload()
        return events

    def test_scalars_images_histograms(self, tmp_path):
        writer = TensorboardXWriter(tmp_path)
        with EventStorage() as storage:
            put(storage, 19, loss=1.5)
            storage.put_image("sample", torch.zeros(3, 4, 6, dtype=torch.uint8))
            storage.put_histogram("weights", torch.arange(10.0), bins=5)
            writer.write()
            storage.clear_histograms()
            put(storage, 39, loss=2.5)
            writer.write()
        writer.close()
        events = self.read(tmp_path)
        tags = events.Tags()
        assert set(tags["scalars"]) == {"total_loss", "lr"}
        assert [(e.step, e.value) for e in events.Scalars("total_loss")] == [(19, 1.5), (39, 2.5)]
        (image,) = events.Images("sample")
        assert (image.step, image.width, image.height) == (19, 6, 4)
        assert tags["histograms"] == ["weights"]

    def test_resumed_curves_are_single(self, tmp_path):
        for start, values in ((0, (1.0, 2.0, 3.0)), (20, (20.0, 30.0))):
            writer = TensorboardXWriter(tmp_path)
            writer.begin(start)
            with EventStorage(start) as storage:
                for n, value in enumerate(values):
                    storage.put_scalar("x", value, smoothing_hint=False, cur_iter=start + 10 * n + 9)
                    writer.write()
            writer.close()
        assert [(e.step, e.value) for e in self.read(tmp_path).Scalars("x")] == [
            (9, 1.0), (19, 2.0), (29, 20.0), (39, 30.0),
        ]  # fmt: skip

    def test_a_checkpoint_knows_what_is_on_the_disk(self, tmp_path):
        """Killed behind a checkpoint: what that counts as written is there, the rest comes again."""
        writer = TensorboardXWriter(tmp_path)
        writer.begin(0)
        with EventStorage() as storage:
            for i in range(10):
                storage.put_scalar("x", float(i), smoothing_hint=False, cur_iter=i)
                writer.write()
                if i == 5:
                    state, saved = writer.state_dict(), storage.state_dict()
                    events = self.read(tmp_path)
                    assert [e.step for e in events.Scalars("x")] == [0, 1, 2, 3, 4, 5]
        writer.flush()  # what came behind it may have reached the disk
        other = TensorboardXWriter(tmp_path)
        other.load_state_dict(state)
        other.begin(7)  # step 6 was saved, but is not in the state of the writer
        with EventStorage(7) as storage:
            storage.load_state_dict(saved)
            storage.put_scalar("x", 6.0, smoothing_hint=False, cur_iter=6)
            other.catch_up()
            for i in (7, 8):
                storage.put_scalar("x", i + 0.5, smoothing_hint=False, cur_iter=i)
                other.write()
        other.close()
        writer.close()
        assert [(e.step, e.value) for e in self.read(tmp_path).Scalars("x")] == [
            *((i, float(i)) for i in range(7)), (7, 7.5), (8, 8.5),
        ]  # fmt: skip

    def test_one_entry_of_hyper_parameters_for_a_run_over_its_resumes(self, tmp_path):
        hparams = {"optimizer.lr": 0.1, "model.name": "tiny", "train.amp": True}
        for start in (0, 20, 40):
            writer = TensorboardXWriter(tmp_path, hparams=hparams)
            writer.begin(start)
            with EventStorage(start) as storage:
                put(storage, start + 9)
                writer.write()
            writer.conclude(start == 40)
            writer.close()
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]
        found = self.read(tmp_path).PluginTagToContent("hparams")
        start, end = (HParamsPluginData.FromString(found[tag]) for tag in
                      ("_hparams_/session_start_info", "_hparams_/session_end_info"))  # fmt: skip
        values = {name: getattr(value, value.WhichOneof("kind")) for name, value in
                  start.session_start_info.hparams.items()}  # fmt: skip
        assert values == hparams
        assert end.session_end_info.status == Status.Value("STATUS_SUCCESS")
        table = self.hparams_table(tmp_path)
        assert {info.name for info in table.hparam_infos} == set(hparams)
        assert {info.name.tag for info in table.metric_infos} == {"total_loss", "lr"}

    def hparams_table(self, folder):
        """Ask TensorBoard's own plugin what its table shows."""
        from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
        from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
        from tensorboard.context import RequestContext
        from tensorboard.plugins.base_plugin import TBContext
        from tensorboard.plugins.hparams.backend_context import Context

        multiplexer = EventMultiplexer()
        multiplexer.AddRunsFromDirectory(str(folder))
        multiplexer.Reload()
        context = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))
        request = RequestContext()
        return context.experiment_from_metadata(request, "", True, context.hparams_metadata(request, ""), [])

    def test_scalars_wait_for_each_other_but_not_long(self, tmp_path, monkeypatch):
        clock = [1000.0]
        monkeypatch.setattr(writers_tensorboard.time, "time", lambda: clock[0])
        writer = TensorboardXWriter(tmp_path)
        handed = []
        with EventStorage() as storage:
            for i in range(45):
                storage.put_scalar("x", float(i), smoothing_hint=False, cur_iter=i)
                clock[0] += 30.0 if i == 41 else 0.01
                writer.write()
                handed.append(i + 1 - len(writer._waiting))
            writer.flush()
        assert handed[18:21] == [0, 20, 20]
        assert handed[40:42] == [40, 42]
        assert len(self.read(tmp_path).Scalars("x")) == 45
        writer.close()

    def test_nothing_is_opened_before_the_first_write(self, tmp_path):
        writer = TensorboardXWriter(tmp_path / "log")
        writer.begin(0)
        writer.close()
        assert not (tmp_path / "log").exists()


def test_write_is_for_subclasses():
    with pytest.raises(NotImplementedError, match="EventWriter"):
        EventWriter().write()


def test_no_memory_without_a_gpu():
    assert writers_module._memory({}) == ""


def test_memory_is_that_of_the_rank_that_needs_most():
    with EventStorage() as storage:
        storage.put_scalar("max_mem", 2048.0, smoothing_hint=False)
        assert writers_module._memory(storage.histories()) == "max_mem: 2048M"
