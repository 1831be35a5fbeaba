import gc
import weakref

import pytest
import torch

from hookline.engine import EventStorage, events, get_event_storage, has_event_storage, visuals


def test_storage_is_found_inside_its_context_only():
    assert not has_event_storage()
    with pytest.raises(RuntimeError, match="with EventStorage"):
        get_event_storage()
    with EventStorage() as outer:
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
    assert not has_event_storage()


def test_scalars_are_kept_under_their_iteration():
    storage = EventStorage(10)
    storage.put_scalar("a", 1.0)
    storage.step()
    storage.put_scalars(a=2, b=torch.tensor(3.0))
    storage.put_scalar("a", 9.0, cur_iter=20)
    assert storage.iter == storage.iteration == 11
    assert storage.history("a").values() == [(1.0, 10), (2.0, 11), (9.0, 20)]
    assert storage.latest() == {"a": (9.0, 20), "b": (3.0, 11)}


def test_tensors_are_read_once_when_asked_for(monkeypatch):
    reads = []
    real = events.to_floats
    monkeypatch.setattr(events, "to_floats", lambda tensors: reads.append(len(tensors)) or real(tensors))
    storage = EventStorage()
    for i in range(5):
        storage.put_scalar("acc", torch.tensor(float(i)))
        storage.step()
    assert reads == []
    assert storage.history("acc").median(5) == 2.0
    assert storage.latest() == {"acc": (4.0, 4)}
    assert reads == [5]


def test_deferred_value_is_that_of_the_moment():
    storage = EventStorage()
    running = torch.zeros(())
    for _ in range(3):
        running += 1
        storage.put_scalar("running", running)
        storage.step()
    assert [v for v, _ in storage.history("running").values()] == [1.0, 2.0, 3.0]


def test_smoothing_hint():
    storage = EventStorage()
    for i in range(30):
        storage.iter = i
        storage.put_scalar("loss", float(i))
        storage.put_scalar("lr", float(i), smoothing_hint=False)
        if i < 5:
            storage.put_scalar("rare", float(i))
    assert storage.latest_with_smoothing_hint(20) == {"loss": (19.5, 29), "lr": (29.0, 29), "rare": (2.0, 4)}
    assert storage.latest_with_smoothing_hint(3)["loss"] == (28.0, 29)
    assert storage.smoothing_hints() == {"loss": True, "lr": False, "rare": True}
    assert storage.count_samples("rare", 20) == 5
    storage.put_scalar("loss", 100.0)
    assert storage.latest_with_smoothing_hint(1)["loss"] == (100.0, 29)
    with pytest.raises(ValueError, match="'lr'"):
        storage.put_scalar("lr", 1.0)


def test_name_scope_nests_and_ends():
    storage = EventStorage()
    with storage.name_scope("rpn"):
        storage.put_scalar("a", 1.0)
        with storage.name_scope("sub/"):
            storage.put_scalar("b", 1.0)
    with pytest.raises(KeyError), storage.name_scope("x"):
        raise KeyError
    storage.put_scalar("c", 1.0)
    assert list(storage.histories()) == ["rpn/a", "rpn/sub/b", "c"]


def test_unknown_name_gets_the_nearest():
    storage = EventStorage()
    storage.put_scalar("total_loss", 1.0)
    with pytest.raises(KeyError, match="total_loss"):
        storage.history("total_los")


def test_pending_values_are_bounded(monkeypatch):
    monkeypatch.setattr(events, "PENDING_LIMIT", 10)
    storage = EventStorage()
    for i in range(95):
        storage.put_scalar("x", torch.tensor(1.0), cur_iter=i)
        assert len(storage._pending) < 10
    assert len(storage.history("x")) == 95


def test_state_goes_on_without_a_seam():
    whole, first = EventStorage(), EventStorage()
    for storage, end in ((whole, 60), (first, 33)):
        for i in range(end):
            storage.iter = i
            storage.put_scalar("loss", (i * 37 % 11) / 7)
            storage.put_scalar("lr", i / 100, smoothing_hint=False)
    second = EventStorage(33)
    state = first.state_dict()
    assert all(len(saved["values"]) == 20 for saved in state.values())
    second.load_state_dict(state)
    for i in range(33, 60):
        second.iter = i
        second.put_scalar("loss", (i * 37 % 11) / 7)
        second.put_scalar("lr", i / 100, smoothing_hint=False)
    assert second.latest_with_smoothing_hint(20) == whole.latest_with_smoothing_hint(20)


def test_state_holds_the_largest_window_asked_for():
    storage = EventStorage()
    for i in range(100):
        storage.put_scalar("x", float(i), cur_iter=i)
    storage.latest_with_smoothing_hint(50)
    assert len(storage.state_dict()["x"]["values"]) == 50


def test_forget():
    storage = EventStorage()
    storage.put_scalars(a=1.0, b=2.0)
    storage.forget("a")
    storage.forget("never put")
    assert storage.latest() == {"b": (2.0, 0)}
    storage.put_scalar("a", 3.0)
    assert storage.history("a").values() == [(3.0, 0)]


def test_images_and_histograms():
    storage = EventStorage(4)
    storage.put_image("gt", torch.zeros(3, 4, 5))
    storage.put_histogram("w", torch.tensor([0.0, 1.0, 1.0, 2.0]), bins=2)
    (picture,) = storage.pictures()
    assert (picture.name, picture.iteration, tuple(picture.image.shape)) == ("gt", 4, (3, 4, 5))
    (histogram,) = storage.histograms()
    assert histogram.fields["num"] == 4
    assert histogram.fields["bucket_counts"] == [1.0, 3.0]
    assert histogram.fields["bucket_limits"] == [1.0, 2.0]
    for _ in range(200):
        storage.put_image("many", torch.zeros(3, 1, 1))
    assert len(storage.pictures()) == visuals.PICTURE_LIMIT
    storage.clear_images()
    storage.clear_histograms()
    assert storage.pictures() == storage.histograms() == []


def test_a_source_is_not_kept_alive():
    class Source:
        def waiting(self):
            return [torch.tensor(2.0)]

        def deliver(self, values, storage):
            storage.record(0, {"x": next(values)})

    storage, source = EventStorage(), Source()
    storage.add_source(source)
    storage.add_source(source)
    assert storage.latest() == {"x": (2.0, 0)}
    known = weakref.ref(source)
    del source
    gc.collect()
    assert known() is None
    storage.flush()
