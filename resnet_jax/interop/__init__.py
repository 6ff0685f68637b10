"""Weights from elsewhere, and back; networks as programs for elsewhere."""

__all__ = ["export", "programs", "pytorch_names", "weight_files"]
