"""What training and evaluation hang their pictures, files and numbers on."""

from lgm.callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from lgm.callbacks.ema import EMA
from lgm.callbacks.evaluation import EvaluateEvery
from lgm.callbacks.export import ExportPly
from lgm.callbacks.images import ImageGrid
from lgm.callbacks.measure import Measure
from lgm.callbacks.progress import StepProgress
from lgm.callbacks.report import Report
from lgm.callbacks.stop import RunStopped, StopOnSignal
from lgm.callbacks.throughput import Throughput

__all__ = [
    "BestCheckpoint",
    "EMA",
    "EvaluateEvery",
    "ExportPly",
    "ImageGrid",
    "LastCheckpoint",
    "Measure",
    "Report",
    "RunStopped",
    "StepProgress",
    "StopOnSignal",
    "Throughput",
]
