"""The parts of `experiments.sweep`: many runs of `experiments.train` with one command."""
