"""Files of configs/ by their former names: they compose as today's do, and a line names today's."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from lgm.cli.former_names import CHOICES, update_names
from lgm.cli.validate import num_devices
from tests.unit.cli.test_configs import CONFIGS, composed


@pytest.mark.parametrize(("former", "today"), CHOICES.items())
def test_a_former_name_is_todays_file(former, today, monkeypatch, caplog):
    group, name = former
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = ["run_dir=x", "data=quickstart", f"{group}={name}"]
        cfg = compose("train", overrides=overrides, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: cfg.hydra)
    update_names(cfg)
    (line,) = caplog.messages
    assert f"{group}={name} is now {group}={today}" in line
    was, now = (
        OmegaConf.to_container(composed("data=quickstart", f"{group}={choice}")) for choice in (name, today)
    )
    assert {**was, "name": None} == {**now, "name": None}  # an experiment's own, which names its folder


def test_all_gpus_of_a_machine(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert num_devices(composed("trainer=ddp")) == 3 and num_devices(composed("trainer=ddp8")) == 8
    all_of_them, eight = (composed(f"trainer={name}").trainer for name in ("ddp", "ddp8"))
    assert {**all_of_them, "devices": 8} == dict(eight)
