"""Where a run's numbers go: CSV, TensorBoard, Weights & Biases; failures of a logger never end a run."""
