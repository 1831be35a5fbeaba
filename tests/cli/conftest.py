"""Drawn balloons, and one thread, for the tests that train."""

import pytest
import torch

from hookline.data.datasets.synthetic_balloons import generate_balloons


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder for $HOOKLINE_DATASETS with 7 pictures to train on and 3 to evaluate."""
    root = tmp_path_factory.mktemp("datasets")
    generate_balloons(root, num_train=7, num_val=3)
    return root


@pytest.fixture
def datasets(drawn, monkeypatch):
    monkeypatch.setenv("HOOKLINE_DATASETS", str(drawn))


@pytest.fixture
def one_thread(monkeypatch):
    """One, here and in what is started: another number of threads adds up in another order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
