"""Many runs with one command: the grid, the plan, local workers and Slurm."""
