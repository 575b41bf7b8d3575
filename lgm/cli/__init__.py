"""What `train.py` and `evaluate.py` do: check, build, run."""
