"""What a process sets: applied in the block, given back after it, and known to data workers."""

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import types

import pytest
import torch

from hookline.engine.process_settings import ProcessSettings


def state():
    return {
        "num_threads": torch.get_num_threads(),
        "mp_start_method": multiprocessing.get_start_method(allow_none=True),
        "sharing_strategy": torch.multiprocessing.get_sharing_strategy(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def test_all_is_applied_and_given_back():
    before = state()
    wanted = {
        "num_threads": before["num_threads"] + 1,
        "mp_start_method": "spawn",
        "sharing_strategy": "file_system",
        "cudnn_benchmark": True,
        "cudnn_deterministic": True,
        "matmul_precision": "high",
    }
    assert not before.items() & wanted.items()
    with ProcessSettings(**wanted).applied():
        assert state() == wanted
    assert state() == before


def test_a_failure_gives_back_too():
    before = torch.get_num_threads()

    def fail():
        with ProcessSettings(num_threads=before + 1).applied():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


def test_nothing_is_touched_without_being_asked():
    before = state()
    with ProcessSettings().applied():
        assert state() == before
        assert "OPENCV_FOR_THREADS_NUM" not in os.environ


def test_opencv_is_told_where_it_is_installed(monkeypatch):
    calls = []
    cv2 = types.SimpleNamespace(getNumThreads=lambda: 7, setNumThreads=calls.append)
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    monkeypatch.setenv("OPENCV_FOR_THREADS_NUM", "5")
    with ProcessSettings(opencv_num_threads=0).applied():
        assert os.environ["OPENCV_FOR_THREADS_NUM"] == "1"  # OpenCV takes 0 there for its default
        assert calls == [0]
    assert calls == [0, 7]
    assert os.environ["OPENCV_FOR_THREADS_NUM"] == "5"


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is not installed")
def test_opencv_heeds_its_variable():
    environ = {**os.environ, "OPENCV_FOR_THREADS_NUM": "1"}
    code = "import cv2; print(cv2.getNumThreads())"
    found = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


WORKERS = """
import os, sys
import torch.multiprocessing
from hookline.data import build_detection_test_loader
from hookline.engine.process_settings import ProcessSettings

def look(record):
    return hasattr(os, "forked"), torch.multiprocessing.get_sharing_strategy(), os.environ.get("OPENCV_FOR_THREADS_NUM")

if __name__ == "__main__":
    os.forked = True  # which only a copy of this process knows
    settings = ProcessSettings(mp_start_method=sys.argv[1], sharing_strategy="file_system", opencv_num_threads=3)
    with settings.applied():
        print(*build_detection_test_loader([{}], mapper=look, num_workers=1))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "is_forked"), [("fork", True), ("spawn", False), ("forkserver", False)])
def test_data_workers_start_as_asked_and_know_the_rest(tmp_path, method, is_forked):
    (tmp_path / "workers.py").write_text(WORKERS)
    command = [sys.executable, str(tmp_path / "workers.py"), method]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == f"[({is_forked}, 'file_system', '3')]\n"


INTEROP = """
import torch
from hookline.engine.process_settings import ProcessSettings
with ProcessSettings(num_interop_threads=3).applied():
    assert torch.get_num_interop_threads() == 3
with ProcessSettings(num_interop_threads=3).applied():
    pass
try:
    with ProcessSettings(num_interop_threads=2).applied():
        pass
except RuntimeError as error:
    print(error)
"""


def test_interop_threads_are_set_once():
    found = subprocess.run([sys.executable, "-c", INTEROP], capture_output=True, text=True, check=True)
    assert "train.env.num_interop_threads=2: torch has 3 running already" in found.stdout
