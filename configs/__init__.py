"""What to run: data only. `file.py:model-name[,key=value…]` picks a model and sets fields."""
