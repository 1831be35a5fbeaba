"""The verbs of training: loop, hooks, events, writers, checkpoints, launch."""
