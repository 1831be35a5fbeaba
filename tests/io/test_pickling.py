import pickle
import traceback

import pytest

from hookline.io.pickling import pickle_for_children

FACTOR = 3


def test_closures_and_lambdas_come_back():
    shift = 4

    def outer(value):
        return (lambda inner: inner * FACTOR + shift)(value)

    assert pickle.loads(pickle_for_children(outer))(2) == 10
    assert pickle.loads(pickle_for_children([lambda: shift, "text"]))[0]() == 4


def test_tracebacks_show_the_source_lines():
    def fails():
        raise KeyError("the line itself")

    with pytest.raises(KeyError) as error:
        pickle.loads(pickle_for_children(fails))()
    text = "".join(traceback.format_exception(error.value))
    assert 'raise KeyError("the line itself")' in text
    assert __file__ in text
