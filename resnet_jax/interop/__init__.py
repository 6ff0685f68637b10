"""Weights from elsewhere, and back."""

__all__ = ["export", "pytorch_names", "weight_files"]
