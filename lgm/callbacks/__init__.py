"""Callbacks of training and evaluation: images, files, numbers, checkpoints, stops.

A callback gets its name and options in a file of `configs/callbacks`; `callbacks=[turntable,views]`
puts several together, and `callbacks.turntable.seconds=10` or `callbacks.report=null` changes one.

What makes something of each evaluated object, a video or a mesh, is an `ObjectHook`: it says what it
makes (`what`), takes its options as arguments of its constructor, and writes one object into that
object's folder (`write`), from the network's Gaussians, the images and the cameras of a `Prediction`.
Failures on one object, folders and names are the base's affair.
"""

from lgm.callbacks.evaluation.export import ExportPly
from lgm.callbacks.evaluation.input_sheet import InputSheet
from lgm.callbacks.evaluation.measure import Measure
from lgm.callbacks.evaluation.mesh import WriteMesh
from lgm.callbacks.evaluation.objects import ObjectHook
from lgm.callbacks.evaluation.report import Report
from lgm.callbacks.evaluation.turntable import Turntable
from lgm.callbacks.evaluation.views import WriteViews
from lgm.callbacks.progress import StepProgress
from lgm.callbacks.training.agreement import SameOnAllRanks
from lgm.callbacks.training.best_checkpoint import BestCheckpoint
from lgm.callbacks.training.checkpoint import LastCheckpoint
from lgm.callbacks.training.cost import TrainingCost
from lgm.callbacks.training.ema import EMA
from lgm.callbacks.training.evaluate_every import EvaluateEvery
from lgm.callbacks.training.image_grid import ImageGrid
from lgm.callbacks.training.rollback import Rollback
from lgm.callbacks.training.stop import StopOnSignal
from lgm.callbacks.training.throughput import Throughput
from lgm.callbacks.training.trial_report import ReportTrial
from lgm.callbacks.training.watchdog import Watchdog
from lgm.errors import RunStopped

__all__ = [
    "EMA",
    "BestCheckpoint",
    "EvaluateEvery",
    "ExportPly",
    "ImageGrid",
    "InputSheet",
    "LastCheckpoint",
    "Measure",
    "ObjectHook",
    "Report",
    "ReportTrial",
    "Rollback",
    "RunStopped",
    "SameOnAllRanks",
    "StepProgress",
    "StopOnSignal",
    "Throughput",
    "TrainingCost",
    "Turntable",
    "Watchdog",
    "WriteMesh",
    "WriteViews",
]
