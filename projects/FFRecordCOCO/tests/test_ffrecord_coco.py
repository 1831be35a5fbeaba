"""Train from a pack: bit for bit as from files, with spawned workers, and over a suspension."""

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from hookline.cli.main import main

PROJECT = Path(__file__).resolve().parents[1]
ROOT = PROJECT.parents[1]
DATA = Path(os.environ.get("HOOKLINE_TEST_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA / "tiny_coco").is_dir(), reason=f"no tiny_coco in {DATA}; set HOOKLINE_TEST_DATA"),
]


@pytest.fixture
def work(tmp_path):
    (tmp_path / "packed" / "coco").mkdir(parents=True)
    assert main(["pack", str(DATA / "tiny_coco"), str(tmp_path / "packed/coco/coco.ffr")]) == 0
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "coco").symlink_to(DATA / "tiny_coco")
    return tmp_path


def environment(root):
    variables = {name: value for name, value in os.environ.items() if name != "HOOKLINE_FFRECORD"}
    return {**variables, "HOOKLINE_DATASETS": str(root), "OMP_NUM_THREADS": "1"}


def train(work, root, output, *settings):
    """Train four steps, the packed way or the other, and return the exit code."""
    recipe = work / "tiny.py"
    text = (PROJECT / "configs" / "tiny.py").read_text()
    recipe.write_text(text if root == "packed" else text.replace("from . import packed as _packed\n", ""))
    (work / "packed.py").write_text((PROJECT / "configs" / "packed.py").read_text())
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(recipe), "--no-validate", *settings]
    command += [f"train.output_dir={work / output}", "train.max_iter=4", "train.device=cpu"]
    return subprocess.run(command, env=environment(work / root), cwd=work, check=False).returncode


def weights(folder):
    digest = hashlib.sha256()
    for name, tensor in torch.load(folder / "model_final.pth", weights_only=True)["model"].items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.timeout(900)
def test_weights_are_those_of_plain_files_also_over_a_suspension(work):
    assert train(work, "files", "plain") == 0
    (work / "stop").touch()
    flag = f"train.suspend.flag_file={work / 'stop'}"
    assert train(work, "packed", "suspended", flag) == 75
    assert not (work / "suspended" / "model_final.pth").exists()
    (work / "stop").unlink()
    assert train(work, "packed", "suspended", flag, "--resume", "dataloader.train.num_workers=0") == 0
    assert weights(work / "suspended") == weights(work / "plain")


@pytest.mark.timeout(600)
def test_spawned_workers_read_the_pack(work):
    script = work / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import torch
            from hookline.config import LazyConfig, instantiate

            if __name__ == "__main__":
                torch.multiprocessing.set_start_method("spawn")
                loader = LazyConfig.load({str(PROJECT / "configs" / "tiny.py")!r}).dataloader.train
                batches = []
                for loader.num_workers in (0, 1):
                    stream = iter(instantiate(loader, seed=0))
                    batches.append([sample["image"] for sample in next(stream)])
                    del stream
                assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
                print("equal")
        """)
    )
    result = subprocess.run(
        [sys.executable, script], env=environment(work / "packed"), capture_output=True, text=True, check=True
    )
    assert result.stdout.endswith("equal\n")
