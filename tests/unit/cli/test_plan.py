"""One walk down: composed configuration, checked plan, objects, fit."""

import ast
from dataclasses import FrozenInstanceError

import pytest

from lgm.cli.build import made
from lgm.cli.plan import plan_evaluation, plan_training
from lgm.models import LGM
from tests.integration.running import ROOT
from tests.unit.cli.test_configs import composed

# What comes after the plan, and the functions that begin a walk.
BELOW = ("build", "evaluate", "resume", "start", "train")
FIRST = {"train", "evaluate"}


def is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def test_a_training_is_planned_in_plain_values():
    plan = plan_training(composed("data=quickstart", "trainer=cpu", "train.global_batch_size=16"))
    assert type(plan.config) is dict and is_plain(plan.config)
    assert (plan.devices, plan.num_nodes, plan.world_size, plan.network) == (1, 1, 1, LGM)
    assert plan.batches.accumulation * plan.batches.micro == plan.batches.global_batch == 16
    with pytest.raises(FrozenInstanceError):
        plan.devices = 2


def test_an_evaluation_is_planned_with_what_its_weights_record():
    plan = plan_evaluation(composed("ckpt=mini", "data=quickstart", "trainer=cpu", config="evaluate"))
    assert is_plain(plan.config) and plan.weights.config is not None
    assert plan.config["model"]["net"]["anchors"] == "hull"  # of the weights
    assert plan.config["protocol"]["target_size"] == plan.config["resolution"]["target_size"]


def test_the_released_weights_are_trained_on_as_released():
    choice = ["experiment=released_finetune", "data=quickstart", "trainer=cpu", "init_from=null"]
    config = plan_training(composed(*choice)).config
    assert config["data"]["resize"] == "released" and config["data"]["compositing"] == "twice"
    assert config["data"]["augment"]["grid_distortion"]["cells"] == [7, 15]
    assert config["scheduler"]["processes"] == 8 and config["train"]["global_batch_size"] == 64
    assert config["optimizer"]["decay_norms_and_biases"] and "lpips" in config["loss"]["terms"]
    assert config["resolution"]["target_size"] == 512 and config["model"]["name"] == "big"


def test_what_targets_are_composited_over_is_no_option_of_an_evaluation(monkeypatch):
    typed = [("data.compositing=twice", "data.compositing")]
    monkeypatch.setattr("lgm.cli.validate.typed", lambda: typed)
    with pytest.raises(ValueError, match=r"data.compositing=twice would have no effect: evaluation measures"):
        plan_evaluation(composed("ckpt=mini", "data=quickstart", "trainer=cpu", config="evaluate"))


def test_nothing_climbs_back_to_the_configuration():
    """Below the plan no function takes a composed configuration, and none asks for what was typed."""
    for name in BELOW:
        tree = ast.parse((ROOT / "lgm" / "cli" / f"{name}.py").read_text("utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        takers = {f.name for f in functions for a in [*f.args.args, *f.args.kwonlyargs] if a.arg == "cfg"}
        assert takers <= FIRST, name
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "id")
        }
        assert not called & {"typed", "chosen_network", "num_devices"} or name in ("resume", "start"), name
        for function in functions:
            uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == "cfg"]
            assert len(uses) <= 1, f"{name}.{function.name}"


@pytest.mark.parametrize(
    "text", ["a ${b} c", "\\${x}", "C:\\dir\\${x}\\", "${", "plain \\ text", "${oc.env:HOME}"]
)
def test_texts_of_a_plan_are_texts(text):
    """An argument of a class, say: nothing in it is resolved a second time."""
    assert made({"_target_": "types.SimpleNamespace", "text": text}).text == text


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["train.max_steps=100", "scheduler.warmup_steps=500"], 10),
        (["train.max_steps=100", "scheduler=constant", "scheduler.warmup_steps=100"], 10),
        (["train.max_steps=1", "scheduler.warmup_steps=500"], 0),
        (["train.max_steps=100", "scheduler.warmup_steps=99"], 99),
        (["train.max_steps=100", "scheduler=onecycle_released"], 3000),  # it refuses the run itself
    ],
)
def test_a_warm_up_longer_than_the_run_is_shortened_with_a_line(options, steps, caplog):
    given = ["data=quickstart", "trainer=cpu", "train.val_every_steps=100", *options]
    plan = plan_training(composed(*given))
    assert plan.config["scheduler"]["warmup_steps"] == steps
    said = [text for text in caplog.messages if "scheduler.warmup_steps" in text]
    assert len(said) == (steps <= 10)
    assert all(f"it is {steps} here" in text for text in said)
