"""The planted benchmark of in-context regression, drawn as that of value estimators is."""

from figures.model_recovery import draw

__all__ = ["draw"]
