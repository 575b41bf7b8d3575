"""What checkpoints and yaml files call by a former name is found under today's."""

import logging
from importlib.util import find_spec

import pytest
from omegaconf import OmegaConf

from lgm.cli.build import build_datamodule
from lgm.cli.command_line import understood
from lgm.cli.former_names import update_names
from lgm.cli.values import plain
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


def with_data_module(config):
    """As a program of before had it: `data.module` held the source, and repeated other keys."""
    data = dict(config["data"])
    module = {
        "_target_": "lgm.data.datamodule.ObjectDataModule",
        "source": data.pop("source"),
        "train_views": data["views"],
        "micro_batch_size": data["micro_batch_size"],
    }
    return {**config, "data": {**data, "module": module}}


@pytest.mark.parametrize("data", ["synthetic", "shards", "mixture"])
def test_a_record_of_before_differs_in_nothing(data):
    now = plain(composed(f"data={data}", "data.augment.camera_jitter=null"))
    then = as_before(now)
    assert then != now
    assert list(changes(check_run(then), check_run(now), "")) == []
    assert list(changes(check_run(with_data_module(then)), check_run(now), "")) == []


def test_a_yaml_with_a_data_module_is_built(caplog):
    now = OmegaConf.to_container(composed("data=synthetic"))
    data = now["data"]
    module = {"source": data.pop("source"), "micro_batch_size": "${data.micro_batch_size}"}
    module |= {"num_workers": 0, "train_views": {"num_target_views": 5}, "eval_seed": 7}
    cfg = OmegaConf.create({**now, "data": {**data, "module": module}})
    OmegaConf.set_struct(cfg, True)
    update_names(cfg)
    (line,) = caplog.messages
    for name in ("source is now data.source", "num_workers", "train_views is now data.views", "eval_seed"):
        assert f"data.module.{name}" in line
    assert "micro_batch_size" not in line
    built = build_datamodule(cfg)
    assert (built.num_workers, built.train_views.num_target_views, built.eval_seed) == (0, 5, 7)
    assert isinstance(built.make_source(), SyntheticSource)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("data.module.source.resolution=32", "data.source.resolution=32"),
        ("++data.module.num_workers=2", "++data.num_workers=2"),
        ("data.module.eval_views.num_input_views=3", "protocol.views.num_input_views=3"),
        ("~data.module.seed", "~data.module.seed"),
    ],
)
def test_a_former_key_on_the_command_line_is_named_once(argument, expected, capsys):
    assert understood([argument]) == [expected]
    former, today = argument.partition("=")[0], expected.partition("=")[0]
    assert capsys.readouterr().err == ("" if former == today else f"{former} is now {today}\n")


def test_a_configuration_of_before_is_built_and_named_once(caplog):
    cfg = OmegaConf.create(as_before(OmegaConf.to_container(composed("data=synthetic"))))
    OmegaConf.set_struct(cfg, True)
    caplog.set_level(logging.WARNING)
    update_names(cfg)
    (line,) = caplog.messages
    assert "lgm.data.synthetic.SyntheticSource is now lgm.data.sources.synthetic.SyntheticSource" in line
    assert isinstance(build_datamodule(cfg).make_source(), SyntheticSource)
    update_names(cfg)
    assert len(caplog.messages) == 1


def test_targets_in_lists_too():
    value = [{"_target_": "lgm.data.filters.Filters", "rules": [1, {"_target_": "own.Rule"}]}, None]
    assert targets_today(value)[0]["_target_"] == "lgm.data.sources.filters.Filters"
    cfg = OmegaConf.create({"of": value, "again": "${of}"})
    update_names(cfg)
    assert cfg.again[0]._target_ == "lgm.data.sources.filters.Filters"
