"""What training makes small."""

from __future__ import annotations

from .. import ops
from ..autograd import Tensor
from .module import Module


class SoftmaxLoss(Module):
    """The mean cross entropy of logits (..., classes) and integer labels (...,)."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        if y.shape != logits.shape[:-1]:
            raise ValueError(f"logits of shape {logits.shape} need labels of shape {logits.shape[:-1]}, got {y.shape}")
        units = ops.one_hot(logits.shape[-1], y, logits.dtype)
        return ops.mean(ops.logsumexp(logits, -1) - ops.summation(logits * units, -1))


class MSELoss(Module):
    """The mean squared difference."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        if prediction.shape != target.shape:
            raise ValueError(
                f"a prediction of shape {prediction.shape} is compared with a target of shape {target.shape}"
            )
        difference = prediction - target
        return ops.mean(difference * difference)


class BCELoss(Module):
    """The mean binary cross entropy of logits and targets in [0, 1], of one shape."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape != target.shape:
            raise ValueError(f"logits of shape {logits.shape} are compared with a target of shape {target.shape}")
        # log(1 + exp(x)) without overflow
        softplus = ops.relu(logits) + ops.log1p(ops.exp(ops.negate(ops.abs(logits))))
        return ops.mean(softplus - logits * target)


class GANLoss(Module):
    """What a discriminator's logits lose: on real examples (is_real), or on generated ones.

    The generator's loss is that of its examples taken for real (I. Goodfellow et al., Generative Adversarial Nets, 2014, the
    form without saturation).
    """

    def forward(self, logits: Tensor, is_real: bool) -> Tensor:
        signed = ops.negate(logits) if is_real else logits
        return ops.mean(ops.relu(signed) + ops.log1p(ops.exp(ops.negate(ops.abs(signed)))))
