"""What a user would pick instead, written from the papers; and this project, driven alike.

Each program here answers `benchmarks.compare` by way of `serve.serve`.
"""

PYTORCH_SETTINGS = ("eager", "channels_last", "compile", "amp", "amp_compile")
