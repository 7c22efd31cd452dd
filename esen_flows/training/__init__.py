"""From labelled structures to a checkpoint; reads top to bottom in `train.py`."""
