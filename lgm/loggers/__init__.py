"""Loggers: CSV, TensorBoard, Weights & Biases. A failing logger never costs a run its state."""
