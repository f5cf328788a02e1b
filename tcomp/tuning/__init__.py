"""Tuning of whole models: `tune` drives the tuner of `tcomp.tuner`, and times models with and without what it found."""

from .model import tune

__all__ = ["tune"]
