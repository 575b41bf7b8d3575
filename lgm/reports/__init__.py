"""Pages and tables of evaluations and of their comparison: no Lightning, nothing of a run."""
