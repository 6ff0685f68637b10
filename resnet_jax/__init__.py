"""Plain and residual networks at any depth: reproduce, measure and explain degradation."""

__version__ = "0.1.0"
