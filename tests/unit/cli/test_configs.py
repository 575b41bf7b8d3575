"""Every configuration file composes, and what it describes can be built."""

from importlib.util import find_spec
from pathlib import Path

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lgm.cli.build import build_callbacks, build_datamodule, build_loss
from lgm.cli.validate import check_training, plan_batches
from lgm.cli.values import plain
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.losses import CompositeLoss
from lgm.models import LGM, PatchTransformer
from lgm.preparation.augment import Augmentation
from lgm.rendering import Renderer
from tests.perceptual_weights import needs_linear_weights

CONFIGS = Path(__file__).parents[3] / "configs"
MODELS = {
    "big": 415_042_848,
    "small": 412_958_240,
    "lrm": 412_958_240,
    "tiny": 59_743_360,
    "mini": 14_291_936,
    "transformer": 14_753_792,
}
# What a machine without a GPU may build of a trainer that is for GPUs.
HERE = ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=1", "trainer.precision=32-true"]


def names(group: str) -> list[str]:
    return sorted(p.stem for p in (CONFIGS / group).glob("*.yaml") if p.stem != "base")


def composed(*overrides: str, config: str = "train"):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(config, overrides=["run_dir=/tmp/run", *overrides])


def test_every_group_of_the_folder_is_in_a_defaults_list():
    folders = {p.name for p in CONFIGS.iterdir() if p.is_dir()}
    text = (CONFIGS / "train.yaml").read_text() + (CONFIGS / "evaluate.yaml").read_text()
    recipes = [path.read_text() for path in (CONFIGS / "recipe").glob("*.yaml")]
    of_recipes = {name for name in folders if all(f"- /{name}:" in recipe for recipe in recipes)}
    assert {name for name in folders if f"- {name}:" not in text} == of_recipes - {"callbacks"}
    assert of_recipes == {"callbacks", "loss", "optimizer", "scheduler"}


@pytest.mark.parametrize("name", names("model"))
def test_models(name):
    cfg = composed(f"model={name}")
    with torch.device("meta"):
        net = instantiate(cfg.model.net)
    assert isinstance(net, PatchTransformer if name == "transformer" else LGM)
    assert cfg.model.name == name
    if name in MODELS:
        assert sum(p.numel() for p in net.parameters()) == MODELS[name]


def test_a_model_can_be_built_from_its_own_file_alone():
    cfg = OmegaConf.load(CONFIGS / "model" / "nano.yaml")
    assert isinstance(instantiate(cfg.model.net), LGM)


def test_splat_sizes_are_derived():
    sizes = {}
    for name in names("model"):
        cfg = composed(f"model={name}")
        assert "splat_size" not in OmegaConf.to_yaml(cfg)
        with torch.device("meta"):
            sizes[name] = instantiate(cfg.model.net).splat_size
    assert sizes == {
        "big": 128,
        "small": 64,
        "lrm": 64,
        "tiny": 64,
        "mini": 128,
        "nano": 32,
        "transformer": 128,
    }


@pytest.mark.parametrize(
    ("model", "size", "views"),
    [("big", 512, 8), ("small", 256, 12), ("lrm", 256, 12), ("tiny", 256, 8), ("mini", 128, 8)],
)
def test_resolution_follows_from_the_model_and_can_be_overridden(model, size, views):
    resolution = composed(f"model={model}", "trainer=ddp8").resolution
    assert (resolution.target_size, resolution.num_target_views) == (size, views)
    assert composed(f"model={model}", "resolution=64x6").resolution.target_size == 64
    assert composed(f"model={model}", "resolution.num_target_views=3").resolution.num_target_views == 3


RECIPES = {
    "mini": "mini",
    "nano": "nano",
    "transformer": "mini",
    "big": "published",
    "small": "published",
    "tiny": "published",
}


@pytest.mark.parametrize(("model", "recipe"), RECIPES.items())
def test_a_model_brings_its_recipe(model, recipe):
    """Typed bare: mini and nano train as what was measured best, the released models as published."""
    cfg = composed(f"model={model}")
    is_published = recipe == "published"
    assert cfg.recipe == recipe and "lpips" not in cfg.loss.terms
    assert cfg.loss.terms.rgb.loss.get("in_decibels", False) is not is_published
    assert cfg.data.views._target_ == f"lgm.data.views.{'Random' if is_published else 'Canonical'}Views"
    assert (instantiate(cfg.data.augment) == Augmentation()) is not is_published
    assert ("ema" in cfg.callbacks) is not is_published
    assert (cfg.model.net.anchors == "hull") is not is_published
    assert cfg.optimizer.lr == (4e-4 if is_published else 1e-3)


@pytest.mark.parametrize("name", ["gpu", "ddp", "ddp8", "ddp_multinode", "fsdp"])
def test_training_has_bf16_on_gpus_and_evaluation_float32(name):
    assert composed(f"trainer={name}").trainer.precision == "bf16-mixed"
    assert composed(f"trainer={name}", "ckpt=x", config="evaluate").trainer.precision == "32-true"
    assert composed(f"trainer={name}", "trainer.precision=16-mixed").trainer.precision == "16-mixed"


def test_what_is_chosen_comes_before_the_recipe():
    cfg = composed("model=mini", "loss=default", "data/views=random", "optimizer.lr=2e-4", "callbacks=train")
    assert not cfg.loss.terms.rgb.loss.get("in_decibels", False) and cfg.optimizer.lr == 2e-4
    assert cfg.data.views._target_ == "lgm.data.views.RandomViews" and "ema" not in cfg.callbacks
    other = composed("model=mini", "scheduler=cosine_paper", "optimizer=adamw_released")
    assert (other.scheduler.warmup_steps, other.optimizer.lr) == (0, 4e-4)  # a file as a whole
    assert composed("model=tiny", "recipe=mini").model.net.anchors == "hull"
    former = composed("model=mini", "recipe=published")
    assert (former.model.net.anchors, former.train.max_steps, former.optimizer.lr) == ("none", 30000, 4e-4)


@pytest.mark.parametrize("model", ["big", "small", "tiny"])
def test_the_published_training(model):
    cfg = composed(f"experiment=paper_{model}")
    assert cfg.model.name == model and cfg.name == f"paper_{model}" and cfg.loss.terms.lpips.weight == 1
    assert cfg.data.views._target_ == "lgm.data.views.RandomViews"
    assert (cfg.scheduler.warmup_steps, cfg.optimizer.lr) == (0, 4e-4)


@pytest.mark.parametrize("name", names("trainer"))
def test_trainers(name, tmp_path):
    there = composed(f"trainer={name}")
    assert plan_batches(there)  # as a person types it, with nothing else
    cfg = composed(f"trainer={name}", *HERE, f"run_dir={tmp_path}")
    if OmegaConf.is_config(there.trainer.strategy):
        assert isinstance(instantiate(there.trainer.strategy), L.pytorch.strategies.Strategy)
    trainer = instantiate(cfg.trainer, strategy="auto", logger=False)
    assert trainer.max_steps == cfg.train.max_steps


@pytest.mark.parametrize("name", names("data"))
def test_data(name):
    cfg = composed(f"data={name}")
    datamodule = build_datamodule(cfg)
    assert isinstance(datamodule, ObjectDataModule)


@pytest.mark.parametrize("name", names("data/views"))
def test_view_samplers(name):
    sampler = instantiate(composed(f"data/views={name}").data.views)
    assert sampler.num_target_views == 8


@pytest.mark.parametrize("name", names("data/augment"))
def test_augmentations(name):
    augmentation = instantiate(composed(f"data/augment={name}").data.augment)
    assert isinstance(augmentation, Augmentation)


def test_augmentations_by_default_and_where_numbers_are_compared():
    """The paper's ranges; experiments for a first impression learn sooner without."""
    released = instantiate(composed("recipe=published").data.augment)
    assert released.grid_distortion.probability == released.camera_jitter.probability == 0.5
    assert released.grid_distortion.cells == (8, 16) and released.grid_distortion.strength == 0.5
    assert released.camera_jitter.max_azimuth_deg == pytest.approx(0.1 * 180)
    assert released.camera_jitter.max_elevation_deg == pytest.approx(0.05 * 180)
    assert released.random_background.probability == 0
    for choice in ("experiment=quickstart", "debug=overfit"):
        assert instantiate(composed(choice).data.augment) == Augmentation()


@pytest.mark.parametrize("name", names("resolution"))
def test_resolutions_say_what_their_names_do(name):
    cfg = composed(f"resolution={name}").resolution
    assert name == f"{cfg.target_size}x{cfg.num_target_views}"


@pytest.mark.parametrize("name", names("optimizer"))
def test_optimizers_decay_what_they_say(name):
    cfg, net = composed(f"optimizer={name}").optimizer, instantiate(composed("model=nano").model.net)
    optimizer = instantiate(cfg)(net, batch_size=256)
    covered = sum(len(group["params"]) for group in optimizer.param_groups)
    assert covered == len(list(net.parameters()))
    decayed = [p for group in optimizer.param_groups if group["weight_decay"] > 0 for p in group["params"]]
    assert decayed and all(p.ndim >= 2 for p in decayed) != cfg.decay_norms_and_biases


@pytest.mark.parametrize("name", names("scheduler"))
def test_schedulers(name):
    cfg = composed(f"scheduler={name}", "train.max_steps=4000")
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = instantiate(cfg.scheduler)(optimizer)
    rates = []
    for _ in range(4000):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    processes = cfg.scheduler.get("processes", 1)  # each advances it, past its highest point by up to as many
    warm_up, peak = cfg.scheduler.warmup_steps // processes, max(rates)
    assert peak == 1.0 or (processes > 1 and 1 - 1e-8 < peak < 1)
    assert abs(rates.index(peak) - warm_up) <= 1
    assert not warm_up or rates[0] < 0.05
    assert min(rates) >= 0


@pytest.mark.parametrize("name", names("renderer"))
def test_renderers(name):
    """Each is built, or says in its own line why this machine cannot."""
    cfg = composed(f"renderer={name}").renderer
    try:
        assert isinstance(instantiate(cfg), Renderer)
    except InstantiationException as error:
        package = {"gsplat": "gsplat", "inria": "diff_gaussian_rasterization"}[name]
        assert not (torch.cuda.is_available() and find_spec(package))
        reason = str(error.__cause__)
        assert isinstance(error.__cause__, ValueError) and "\n" not in reason  # noqa: PT017
        assert name in reason and reason.endswith("renderer=torch")


@needs_linear_weights
def test_losses(perceptual):
    for name in set(names("loss")) - {"hed"}:
        assert isinstance(instantiate(composed(f"loss={name}").loss), CompositeLoss)


def test_the_loss_with_hed(hed):
    loss = instantiate(composed("loss=hed").loss)
    assert list(loss.terms) == ["rgb", "alpha", "hed"]


@pytest.mark.parametrize("override", ["lpips.weight=0", "lpips.start_step=100"])
def test_a_term_that_a_run_never_reaches_loads_nothing(override):
    """There are no weights to load here."""
    loss = build_loss(composed("loss=paper", "train.max_steps=100", f"loss.terms.{override}"))
    assert set(loss.terms) == {"rgb", "alpha"}


def test_a_term_set_to_null_is_left_out():
    assert set(build_loss(composed("loss.terms.alpha=null")).terms) == {"rgb"}
    with pytest.raises(InstantiationException, match=r"loss.terms is empty"):
        build_loss(composed("loss.terms.alpha=null", "loss.terms.rgb=null"))


@needs_linear_weights
def test_a_term_that_starts_late_is_loaded_at_once(perceptual):
    loss = build_loss(composed("loss=paper", "train.max_steps=101", "loss.terms.lpips.start_step=100"))
    assert list(loss.terms) == ["rgb", "alpha", "lpips"]


def test_protocols_and_callbacks(tmp_path):
    for name in names("protocol"):
        cfg = composed(f"protocol={name}")
        assert cfg.protocol.name == name and instantiate(cfg.protocol.views)
    assert build_callbacks(composed("callbacks=train", f"run_dir={tmp_path}"))
    # A protocol is resolved when it is built; a checkpoint, or a person, has named the model by then.
    assert build_callbacks(composed("ckpt=x", "model=nano", config="evaluate"))


@pytest.mark.parametrize("choice", [*names("logger"), "[tensorboard,wandb]"])
def test_loggers(choice, tmp_path):
    """Each is built beside metrics.csv, or says in its own line what to install."""
    cfg = composed(f"logger={choice}", f"run_dir={tmp_path}").logger
    assert "csv" in cfg
    for name, entry in cfg.items():
        try:
            assert isinstance(instantiate(entry), L.pytorch.loggers.logger.Logger)
        except InstantiationException as error:
            assert not find_spec(name)
            assert str(error.__cause__).startswith(f"logger={name} needs the package {name}")  # noqa: PT017
            assert "\n" not in str(error.__cause__)  # noqa: PT017


@pytest.mark.parametrize("group", ["experiment", "debug", "hparams_search", "launcher"])
def test_deltas_compose_and_pass_the_checks(group):
    for name in names(group):
        cfg = composed(
            f"{group}={name}",
            "data.path=/somewhere" if group in ("hparams_search", "launcher") else "data=quickstart",
        )
        assert check_training(cfg)
        assert plain(cfg)


def test_each_lever_changes_the_base_and_nothing_that_is_compared():
    """What they are trained for and measured by is the same."""
    levers = names("experiment/lever")  # without the base
    base = composed("experiment=lever/base", "data.path=/somewhere")
    assert base.train.max_steps == 1000 and base.model.net.anchors == "hull" and base.init_from is None
    differing = {}
    for name in levers:
        cfg = composed(f"experiment=lever/{name}", "data.path=/somewhere")
        assert check_training(cfg) and cfg.name == f"lever_{name}"
        differing[name] = {key for key in base if cfg[key] != base[key]} - {"name", "run_dir"}
    of_data = ("procedural_half", "procedural_only", "light", "colors", "random_elevations")
    assert differing == {
        **{name: {"data"} for name in of_data},
        **{name: {"loss"} for name in ("mse", "l1_ssim")},
        **{name: {"model"} for name in ("more_attention", "transformer")},
        "more_views": {"resolution", "data"},  # view samplers refer to the number
    }


def test_a_callback_set_to_null_is_left_out(tmp_path):
    full = build_callbacks(composed(f"run_dir={tmp_path}"))
    less = build_callbacks(composed(f"run_dir={tmp_path}", "callbacks.images=null"))
    assert set(full) - set(less) == {"images"}


@pytest.mark.parametrize("config", ["train", "evaluate"])
def test_every_class_is_named_by_target(config):
    """No key anywhere chooses a class by another name than _target_."""
    overrides = ["ckpt=x"] if config == "evaluate" else []
    assert "type:" not in OmegaConf.to_yaml(composed(*overrides, config=config))
