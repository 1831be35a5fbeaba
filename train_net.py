"""The main job: ``python train_net.py --config-file RECIPE [key=value ...]``. See ``hookline/cli/train.py``."""

from hookline.cli.train import main, run_to_end

if __name__ == "__main__":
    run_to_end(main)
