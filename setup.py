"""Build Hookline: a pure-Python wheel. Nothing here imports torch, so building needs only setuptools."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "hookline/__init__.py").read_text("utf-8"), re.MULTILINE)
assert VERSION is not None

# Lower bounds only; docs/decisions.md says why each one is here. `make test-oldest` tries exactly these.
REQUIRES = [
    "torch>=2.8",
    "torchvision>=0.23",
    "numpy>=1.26",
    "fvcore>=0.1.5.post20221221",
    "iopath>=0.1.10",
    "omegaconf>=2.3",
    "hydra-core>=1.3",
    "cloudpickle>=3.0",
    "pycocotools>=2.0.8",
    "hotcoco>=1.0",
    "pillow>=10.1",
    "tensorboard>=2.16.2",
    "tabulate>=0.9",
    "tqdm>=4.66",
]
FAST = ["isal>=1.5.1"]  # CRC-32 of FFRecord files ten times as fast
WANDB = ["wandb>=0.31"]
MLFLOW = ["mlflow-skinny>=3.17", "sqlalchemy>=2.0", "alembic>=1.13"]  # the last two for stores in a database
TEST = ["pytest>=8.0", "pytest-timeout>=2.3.1", "hypothesis>=6.100", "psutil>=5.9", *WANDB, *MLFLOW]
LINT = ["ruff>=0.9", "mypy>=1.14", "import-linter>=2.1", "types-PyYAML", "types-tabulate", "types-tqdm"]

setup(
    name="hookline",
    version=VERSION.group(1),
    description="A Detectron2-style trainer engine for object detection and segmentation, in pure Python",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["hookline", "hookline.*"]),
    package_data={"hookline": ["py.typed"]},
    install_requires=REQUIRES,
    extras_require={
        "fast": FAST,
        "wandb": WANDB,
        "mlflow": MLFLOW,
        "test": TEST,
        "lint": LINT,
        "dev": TEST + LINT + FAST,
    },
    entry_points={"console_scripts": ["hookline = hookline.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
