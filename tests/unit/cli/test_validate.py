import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException

from lgm.cli.build import build_loss
from lgm.cli.evaluate import evaluate
from lgm.cli.faults import fault_line, one_line
from lgm.cli.plan import plan_evaluation
from lgm.cli.validate import check_training, num_devices, plan_batches
from lgm.models import LGM
from lgm.models.pretrained import read_weights
from scripts.export import export
from tests.unit.cli.test_configs import CONFIGS, composed
from tests.unit.models.test_pretrained import NET, checkpoint


@pytest.mark.parametrize(
    ("overrides", "accumulation"),
    [
        (["train.global_batch_size=32", "data.micro_batch_size=8"], 4),
        (["train.global_batch_size=256", "data.micro_batch_size=8", "trainer=ddp8"], 4),
        (["train.global_batch_size=256", "data.micro_batch_size=8", "trainer=ddp_multinode"], 1),
    ],
)
def test_accumulation_is_derived(overrides, accumulation):
    assert plan_batches(composed(*overrides)).accumulation == accumulation


def test_a_remainder_is_refused_with_a_number_that_works():
    cfg = composed("train.global_batch_size=100", "data.micro_batch_size=8", "trainer=ddp8")
    with pytest.raises(
        ValueError, match=r"train.global_batch_size=100 is not a multiple .* 8 \* 8 = 64; try 64"
    ):
        plan_batches(cfg)


def test_devices():
    assert num_devices(composed("trainer=cpu", "trainer.devices=auto")) == 1
    assert num_devices(composed("trainer=ddp8")) == 8
    with pytest.raises(ValueError, match=r"trainer.devices='many'"):
        num_devices(composed("trainer.devices=many"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"data.path is not set: .* data=quickstart"),
        (["scene.fov_y_deg=179.9999"], r"scene.fov_y_deg=179.9999, .* between 0.1 and 170 degrees"),
        (["scene.fov_y_deg=nan"], "scene.fov_y_deg=nan, which is not"),
        (["scene.fov_y_deg=wide"], "scene.fov_y_deg=wide must be a number"),
        (["scene.radius=0"], "scene.radius=0 must lie between"),
        (["data=quickstart", "trainer=cpu", "train.max_steps=0"], "train.max_steps=0"),
        (["data=quickstart", "trainer=cpu", "train.val_every_steps=-1"], "train.val_every_steps=-1"),
        (["data=quickstart", "trainer=gpu", "trainer.devices=64"], "needs 64 GPUs"),
        (["data=quickstart", "trainer=cpu", "train.clip_grad_norm=0"], "train.clip_grad_norm=0"),
        (
            ["data=quickstart", "trainer=cpu", "init_from=x", "init_weights=emma"],
            "init_weights='emma' is not",
        ),
    ],
)
def test_mistakes_end_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_training(composed(*overrides))
    assert "\n" not in str(caught.value)


@pytest.fixture
def types(monkeypatch):
    """Makes a list of overrides what a person typed."""

    def composed_of(config: str, *overrides: str):
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            given = compose(config, overrides=["run_dir=x", *overrides], return_hydra_config=True)
        monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
        monkeypatch.setattr(HydraConfig, "get", lambda: given.hydra)
        return composed(*overrides, config=config)

    return composed_of


@pytest.mark.parametrize(
    "choice", [f"renderer={n}" for n in ("triton", "gsplat", "inria")] + ["renderer.name=gsplat"]
)
def test_a_renderer_for_gpus_in_a_run_on_the_cpu(choice, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    options, name = ["data=quickstart", "trainer=cpu", choice], choice.partition("=")[2]
    said = f"renderer={name} draws on NVIDIA GPUs, and .* on cpu; choose"
    with pytest.raises(ValueError, match=said) as caught:
        check_training(composed(*options))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=said):
        evaluate(composed(*options, "ckpt=absent.ckpt", config="evaluate"))


def test_renderers_that_may_run_on_the_cpu(monkeypatch):
    options = ["data=quickstart", "trainer=cpu"]
    assert check_training(composed(*options)) and check_training(composed(*options, "renderer=torch"))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert check_training(composed(*options, "renderer=triton"))


@pytest.mark.parametrize(
    "option",
    [
        "data/views=window",
        "data.augment.camera_jitter=null",
        "data/cache=memory",
        "data.cache.max_bytes=1",
        "data.micro_batch_size=2",
        "data.train_split=a",
        "data.val_split=val",
        "data.max_train_objects=1",
        "data.max_val_objects=1",
    ],
)
def test_evaluation_refuses_what_only_training_reads(types, option):
    cache = ["data/cache=memory"] if option.startswith("data.cache") else []
    cfg = types("evaluate", "data=quickstart", "ckpt=x", *cache, option)
    typed = cache[0] if cache else option
    with pytest.raises(ValueError, match=f"{typed} would have no effect: .*; leave it out"):
        evaluate(cfg)


def test_evaluation_takes_what_it_reads(types):
    options = ["data=quickstart", "data.cache_dir=x", "data.split=val", "data.max_test_objects=2"]
    cfg = types("evaluate", *options, "data.eval_batch_size=1", "ckpt=absent.ckpt")
    with pytest.raises(FileNotFoundError, match=r"absent.ckpt"):
        evaluate(cfg)


@pytest.mark.parametrize("option", ["data.split=val", "data.max_test_objects=2"])
def test_training_refuses_what_only_evaluation_reads(types, option):
    with pytest.raises(ValueError, match=f"{option} would have no effect: training reads data.*train"):
        check_training(types("train", "data=quickstart", "trainer=cpu", option))


def test_another_network_is_refused_by_what_differs(tmp_path):
    torch.manual_seed(0)
    asked = [f"model.net.{key}={str(value).replace(' ', '')}" for key, value in NET.items()]
    options = ["data=quickstart", "trainer=cpu", "model=mini", "model.name=micro", "model.net._target_=null"]
    path = checkpoint(tmp_path / "run.ckpt", LGM(**NET))
    cfg = composed(*options, f"ckpt={path}", *asked, "model.net.anchors=hull", config="evaluate")
    with pytest.raises(ValueError, match=r"network than model=micro: model.net.anchors none → hull; leave"):
        evaluate(cfg)


def test_a_model_is_named_beside_weights_of_its_recipe(types):
    """`train.py model=mini`, then `evaluate.py model=mini ckpt=…`: anchors are the recipe's, on record."""
    options = ["data=quickstart", "trainer=cpu", "model=mini", "ckpt=mini"]
    plan = plan_evaluation(types("evaluate", *options))
    assert plan.config["model"]["net"]["anchors"] == "hull"
    with pytest.raises(ValueError, match=r"model.net.anchors hull → pixels; leave model=… out"):
        plan_evaluation(types("evaluate", *options, "model.net.anchors=pixels"))


@pytest.mark.parametrize("record", [".ckpt", "folder"])
def test_a_record_of_rotations_is_not_told_another(tmp_path, record):
    torch.manual_seed(0)
    where = checkpoint(tmp_path / "run.ckpt", LGM(**NET))
    if record == "folder":
        where = export(read_weights(where), tmp_path / "exported", torch.float32).parent
    cfg = composed("data=quickstart", "trainer=cpu", f"ckpt={where}", "rotation=legacy", config="evaluate")
    with pytest.raises(ValueError, match=r"rotation=legacy would have no effect: .*; leave it out"):
        evaluate(cfg)


def test_the_line_is_found_in_what_libraries_wrap_around_it():
    worker = ValueError(
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\n    raise ValueError\nValueError: object 7 is broken\n'
    )
    assert one_line(worker) == "object 7 is broken"
    assert one_line(ValueError("a\nb")) == "a"


@pytest.mark.parametrize(
    "choice", ["turntable", "turntable_fancy", "views", "mesh", "evaluate", "[turntable,views]"]
)
def test_callbacks_of_an_evaluation_are_refused_in_training(choice):
    with pytest.raises(ValueError, match="it has no checkpoint_best, checkpoint_last, stop; use"):
        check_training(composed(f"callbacks={choice}", "data=quickstart"))
    with pytest.raises(ValueError, match=r"its measure has no effect here"):
        check_training(composed(f"callbacks=[train,{choice.strip('[]')}]", "data=quickstart"))


def test_callbacks_of_training_are_taken_in_training():
    for choice in ("callbacks=train", "callbacks=train_ema", "callbacks.stop=null", "+callbacks.mine.a=1"):
        assert check_training(composed(choice, "data=quickstart"))


@pytest.mark.parametrize("choice", ["train", "train_ema"])
def test_callbacks_of_training_are_refused_in_an_evaluation(choice):
    with pytest.raises(ValueError, match=r"callbacks is not for evaluate.py: it has no measure"):
        evaluate(composed(f"callbacks={choice}", "data=quickstart", "ckpt=mini", config="evaluate"))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            "mylab.L1",
            "ModuleNotFoundError: No module named 'mylab'; install it, put its folder on PYTHONPATH",
        ),
        ("lgm.losses.L7", "No module named 'lgm.losses.L7'; install it"),
        ("lgm.losses.CompositeLoss.none", "AttributeError: .*no attribute 'none'; correct the name"),
        ("fails_on_import.L1", "RuntimeError: no licence; its module raises that when it is imported"),
    ],
)
def test_a_class_that_cannot_be_loaded_says_why(target, said, tmp_path, monkeypatch):
    (tmp_path / "fails_on_import.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    cfg = composed(f"+loss.terms.mine._target_={target}")
    with pytest.raises(InstantiationException) as caught:
        build_loss(cfg)
    line = fault_line(caught.value)
    assert re.match(rf"terms\.mine\._target_={target} cannot be loaded: .*{said}", line) and "\n" not in line
