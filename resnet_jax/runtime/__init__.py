"""How JAX is set up, over which devices and processes a run is spread, and XLA:CPU's own needs."""
