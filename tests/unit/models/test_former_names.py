"""What checkpoints and yaml files call by a former name is found under today's."""

import logging
from importlib.util import find_spec

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lgm.cli.build import plain
from lgm.cli.former_names import update_targets
from lgm.data.sources.synthetic import SyntheticSource
from lgm.models.former_names import MODULES, name_today, targets_today
from lgm.models.plain_data import changes
from lgm.models.records import check_run
from tests.unit.cli.test_configs import composed

FORMER = {today: former for former, today in MODULES.items()}


def as_before(value):
    """Nested configuration with each `_target_` as a program of before wrote it."""
    if isinstance(value, dict):
        return {key: before(v) if key == "_target_" else as_before(v) for key, v in value.items()}
    return [as_before(inner) for inner in value] if isinstance(value, list) else value


def before(name):
    module, _, attribute = name.rpartition(".")
    return f"{FORMER[module]}.{attribute}" if module in FORMER else name


def test_each_module_is_there_under_its_name_of_today_alone():
    assert [today for today in MODULES.values() if find_spec(today) is None] == []
    assert [today for today in MODULES.values() if today in MODULES] == [], "a name leads to the last at once"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lgm.data.shards.ShardSource", "lgm.data.sources.shards.ShardSource"),
        ("lgm.data.stream.TrainStream", "lgm.data.stream.batches.TrainStream"),
        ("lgm.data.stream.batches.TrainStream", "lgm.data.stream.batches.TrainStream"),
        ("lgm.data.augment.Augmentation", "lgm.preparation.augment.Augmentation"),
        ("own.package.Source", "own.package.Source"),
        ("Source", "Source"),
    ],
)
def test_names(name, expected):
    assert name_today(name) == expected


@pytest.mark.parametrize("data", ["synthetic", "shards", "mixture"])
def test_a_record_of_before_differs_in_nothing(data):
    now = plain(composed(f"data={data}", "data.augment.camera_jitter=null"))
    then = as_before(now)
    assert then != now
    assert list(changes(check_run(then), check_run(now), "")) == []


def test_a_configuration_of_before_is_built_and_named_once(caplog):
    cfg = OmegaConf.create(as_before(OmegaConf.to_container(composed("data=synthetic"))))
    OmegaConf.set_struct(cfg, True)
    caplog.set_level(logging.WARNING)
    update_targets(cfg)
    (line,) = caplog.messages
    assert "lgm.data.synthetic.SyntheticSource is now lgm.data.sources.synthetic.SyntheticSource" in line
    assert isinstance(instantiate(cfg.data.module).make_source(), SyntheticSource)
    update_targets(cfg)
    assert len(caplog.messages) == 1


def test_targets_in_lists_too():
    value = [{"_target_": "lgm.data.filters.Filters", "rules": [1, {"_target_": "own.Rule"}]}, None]
    assert targets_today(value)[0]["_target_"] == "lgm.data.sources.filters.Filters"
    cfg = OmegaConf.create({"of": value, "again": "${of}"})
    update_targets(cfg)
    assert cfg.again[0]._target_ == "lgm.data.sources.filters.Filters"
