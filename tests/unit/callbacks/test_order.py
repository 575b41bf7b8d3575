"""Callbacks run in the order of what they are, whatever their names and their order in a configuration."""

import itertools
import random

import pytest

from lgm.callbacks import TrainingCost
from lgm.callbacks.order import Stage, ordered
from lgm.cli.build import build_callbacks
from tests.unit.cli.test_configs import composed


def names(callbacks):
    return [type(callback).__name__ for callback in callbacks]


@pytest.mark.parametrize("arguments", [("callbacks=train_ema",), ("callbacks=[train,train_ema]",)])
def test_training_callbacks_by_stage(arguments):
    callbacks = list(build_callbacks(composed(*arguments, "evaluate_every=2")).values())
    random.shuffle(callbacks)
    order = names(ordered(callbacks))
    assert order[-4:] == ["StopOnSignal", "EvaluateEvery", "BestCheckpoint", "LastCheckpoint"]
    assert "EMA" in order[:-4]


def test_callbacks_are_finished_by_their_constructors():
    before = {"step": 3, "config": {"_target_": "no.such.Thing", "text": "${nowhere}"}}
    for arguments in ([], ["+callbacks.again={_target_:lgm.callbacks.TrainingCost}"]):
        callbacks = build_callbacks(composed(*arguments), [(TrainingCost, {"before": before})])
        costs = [callback for callback in callbacks.values() if isinstance(callback, TrainingCost)]
        assert [cost.before for cost in costs] == [before] * (1 + len(arguments))


def test_others_keep_their_order():
    class Plain:
        pass

    class First:
        stage = Stage.MEASURE

    for first in itertools.permutations([Plain(), Plain(), First()]):
        result = ordered(first)
        assert isinstance(result[0], First)
        assert result[1:] == [callback for callback in first if isinstance(callback, Plain)]
