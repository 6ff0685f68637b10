"""What a user would pick instead, written here from the papers; and ours, driven alike.

Each module is a program that `benchmarks.compare` starts and drives through `turns.serve`.
"""

PYTORCH_SETTINGS = ("eager", "channels_last", "compile", "amp", "amp_compile")
