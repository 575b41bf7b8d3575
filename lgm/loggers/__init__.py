"""Loggers: CSV, TensorBoard, Weights & Biases, Trackio. A failing logger never costs a run its state."""
