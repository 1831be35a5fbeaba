from hookline.engine import EventStorage
from hookline.engine.news import NewScalars, restored_names


def test_every_value_is_taken_once():
    news = NewScalars()
    with EventStorage() as storage:
        assert news.take() == {}
        storage.put_scalars(a=1.0, b=2.0, cur_iter=4)
        storage.put_scalar("early", 3.0, cur_iter=2)
        assert news.take() == {2: {"early": 3.0}, 4: {"a": 1.0, "b": 2.0}}
        assert news.take() == {}
        storage.put_scalar("late", 5.0, cur_iter=4)
        assert news.take() == {4: {"late": 5.0}}
        assert news.take() == {}
        storage.put_scalar("a", 3.0, cur_iter=5)
        assert news.take() == {5: {"a": 2.0}}


def test_no_evaluation_between_two_times_of_writing_is_lost():
    news = NewScalars()
    with EventStorage() as storage:
        for step in range(30):
            storage.put_scalar("lr", step, smoothing_hint=False, cur_iter=step)
            storage.put_scalar("loss", step, cur_iter=step)
            if step % 4 == 3:
                storage.put_scalar("bbox/AP", step, smoothing_hint=False, cur_iter=step)
            if step == 13:
                first = news.take()
        assert first == {3: {"bbox/AP": 3}, 7: {"bbox/AP": 7}, 11: {"bbox/AP": 11}, 13: {"lr": 13, "loss": 6.5}}
        rest = [15, 19, 23, 27]
        assert news.take() == {**{k: {"bbox/AP": k} for k in rest}, 29: {"lr": 29, "loss": 19.5}}
        assert news.take() == {}


def test_what_an_earlier_run_has_written_is_known():
    news = NewScalars()
    with EventStorage(20) as storage:
        storage.put_scalars(a=1.0, cur_iter=19)
        storage.put_scalars(b=1.0, cur_iter=9)
        assert restored_names(19) == {"a"}
        news.begin(19, restored_names(19))
        assert news.take() == {}
        storage.put_scalar("resumed evaluation", 1.0, cur_iter=19)
        assert news.take() == {19: {"resumed evaluation": 1.0}}
    assert restored_names(19) == set()


def test_iterations_come_in_order():
    news = NewScalars()
    with EventStorage() as storage:
        for name, iteration in (("x", 9), ("y", 3), ("z", 6)):
            storage.put_scalar(name, 1.0, cur_iter=iteration)
        assert list(news.take()) == [3, 6, 9]
