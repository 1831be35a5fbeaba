"""The main job: ``python train_net.py --config-file RECIPE [key=value ...]``. See ``hookline/cli/train.py``."""

import sys

from hookline.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
