import subprocess
import sys

import hookline.engine as engine


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_loads_neither_other_rooms_nor_heavy_libraries():
    loaded = run("import hookline.engine, sys; print('\\n'.join(sys.modules))").split()
    for name in (
        "torchvision", "tensorboard", "torch.utils.tensorboard", "hookline.data", "hookline.modeling",
        "hookline.evaluation", "hookline.structures", "hookline.visualization", "hydra", "matplotlib", "PIL",
    ):  # fmt: skip
        assert name not in loaded


def test_all_names_exist():
    for name in engine.__all__:
        assert getattr(engine, name) is not None
    assert set(engine.__all__) <= set(dir(engine))


def test_a_wrong_name_is_an_attribute_error():
    assert not hasattr(engine, "Trainerr")


def test_launch_is_the_function_whatever_was_imported_before():
    assert run("import hookline.engine.launch; from hookline.engine import launch; print(callable(launch))") == "True\n"
