"""The norm of the gradients as a metric, where nothing clips it."""

from __future__ import annotations

import torch

from hookline.engine.train_loop import HookBase

__all__ = ["GradientNorm"]


class GradientNorm(HookBase):
    """Records the 2-norm of all gradients together as ``grad_norm``, before they are clipped.

    :class:`~hookline.engine.gradients.ClipGradNorm` records the same by itself; this is for runs that clip otherwise or
    not at all. It reads every gradient once and does not wait for the device.
    """

    @torch.no_grad()
    def after_backward(self) -> None:
        """Measure the norm."""
        groups = self.trainer.optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([g.coalesce().values() if g.is_sparse else g for g in gradients])
        # of sharded parameters each rank knows a part
        self.trainer.storage.put_scalar("grad_norm", norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
