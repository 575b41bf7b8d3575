"""Records are data: what a file of weights says of itself runs nothing and resolves nothing."""

from __future__ import annotations

import copy
import json
import re
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from lgm.cli.adopt import adopt
from lgm.cli.build import build_net
from lgm.cli.evaluate import evaluate
from lgm.cli.networks import check_recordable, chosen_network
from lgm.cli.resume import check_resume
from lgm.cli.start import start
from lgm.cli.values import plain
from lgm.models import LGM
from lgm.models.pretrained import find_weights, read_weights
from lgm.models.records import BUILT, Resolution, Scene
from lgm.models.registry import NETWORKS
from scripts.export import export
from scripts.export import main as export_main
from tests.unit.cli.test_configs import composed

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"
OF_HYDRA = ("hparams_search", "launcher", "experiment", "debug")  # deltas over others, and Hydra's own
NET = {
    "_target_": "lgm.models.LGM",
    "down_channels": [32, 32],
    "down_attention": [False, True],
    "mid_attention": False,
    "up_channels": [32],
    "up_attention": [False],
    "input_size": 16,
    "num_input_views": 4,
    "attention": "sdpa",
    "kernels": "auto",
    "anchors": "pixels",
    "draft_elevations_deg": None,
    "scale_bounds": None,
    "rotation": "fixed",
}
RECORD = {
    "model": {"name": "micro", "net": NET},
    "scene": {"radius": 1.5, "fov_y_deg": 49.1, "background": [1.0, 1.0, 1.0]},
    "resolution": {"target_size": 16, "other_target_sizes": [], "num_target_views": 6},
}
SECRET = "a-secret-of-this-machine"
RAN: list[object] = []


def ran(*arguments, **options):
    """What a record must never reach."""
    RAN.append((arguments, options))
    return "fixed"


ORDER = {"_target_": f"{__name__}.ran", "url": "pipe:touch owned"}


class Net(LGM):
    """A network of one's own."""


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("A_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    RAN.clear()
    yield
    assert RAN == [] and not Path("owned").exists()


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return LGM(**{key: value for key, value in NET.items() if key != "_target_"}).state_dict()


@pytest.fixture(scope="module")
def run_config() -> dict:
    """The configuration of a run as programs recorded it before records were checked, of this network."""
    config = json.loads((GOLDEN / "run_config.json").read_text())["config"]
    return {**config, **copy.deepcopy(RECORD)}


@pytest.fixture(scope="module")
def training():
    sizes = [f"model.net.{key}={json.dumps(NET[key])}" for key in ("down_channels", "up_channels")]
    sizes += [f"model.net.{key}={json.dumps(NET[key])}" for key in ("down_attention", "up_attention")]
    sizes += [
        "model.name=micro",
        "model.net.mid_attention=false",
        "model.net.input_size=16",
        "resolution.target_size=16",
    ]
    # The recipe of runs that were recorded before there were others.
    options = ["model=nano", "recipe=published", "data=quickstart", "trainer=cpu"]
    return composed(*options, *sizes, config="train")


@pytest.fixture(scope="module")
def evaluation():
    return composed("ckpt=x", "data=quickstart", "trainer=cpu", config="evaluate")


def as_safetensors(path: Path, weights, record, **metadata: str) -> Path:
    text = record if isinstance(record, str) else json.dumps(record)
    save_file(weights, path, {"lgm_config": text, **metadata})
    return path


def as_checkpoint(path: Path, weights, config, **content) -> Path:
    state, step = {f"net.{name}": tensor for name, tensor in weights.items()}, {"global_step": 7}
    torch.save({"state_dict": state, "config": config, "schema_version": 1, **step, **content}, path)
    return path


class Doors:
    """Every way in which a file of weights is taken, as a person takes it."""

    def __init__(self, training, evaluation, monkeypatch) -> None:
        self._training, self._evaluation, self._patch = training, evaluation, monkeypatch
        self._net = build_net(training)

    def evaluate(self, path):
        self._evaluation.ckpt = str(path)
        evaluate(self._evaluation)

    def init_from(self, path):
        self._training.init_from = str(path)
        start(self._training, self._net, chosen_network(self._training))

    def resume(self, path):
        self._training.resume = str(path)
        check_resume(self._training, self._net, path, chosen_network(self._training))

    def from_pretrained(self, path):
        LGM.from_pretrained(path)

    def hub(self, path):
        hub = types.SimpleNamespace(hf_hub_download=lambda repository, file: str(path))
        self._patch.setitem(sys.modules, "huggingface_hub", hub)
        LGM.from_pretrained(f"hf:owner/name/{path.name}")

    def export(self, path):
        self._patch.setattr(sys, "argv", ["export.py", str(path), "--out", str(path.parent / "exported")])
        said = []
        self._patch.setattr(sys, "stderr", types.SimpleNamespace(write=said.append, flush=lambda: None))
        try:
            assert export_main() == 2
        finally:
            self._patch.undo()
        assert not (path.parent / "exported").exists()
        raise ValueError("".join(said).removeprefix("error: ").rstrip("\n"))

    def all_of(self, path: Path):
        names = ["evaluate", "init_from", "from_pretrained", "hub", "export"]
        return [getattr(self, name) for name in [*names, *(["resume"] if path.suffix == ".ckpt" else [])]]


@pytest.fixture
def doors(training, evaluation):
    with pytest.MonkeyPatch.context() as patch:
        yield Doors(training, evaluation, patch)


def refused(door, path: Path) -> str:
    """The line with which a door refuses a file."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        door(path)
    line = str(error.value)
    assert "\n" not in line and SECRET not in line and path.name in line and len(line) < 1000, line
    assert line.isprintable()
    return line


def changed(key: str, value) -> dict:
    """The record with another value at a dotted key; with `None.` in front, the key is new."""
    record = copy.deepcopy(RECORD)
    *path, last = key.split(".") if not isinstance(key, tuple) else key
    place = record
    for name in path:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[int(last) if isinstance(place, list) else last] = value
    return record


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


ENV = "${oc.env:A_SECRET}"
HOSTILE = {
    "an order for a value": (changed("model.net.rotation", ORDER), "model.net.rotation"),
    "an order in a list": (changed("model.net.down_channels", [ORDER, 32]), "down_channels"),
    "an order in an order": (changed("model.net.rotation", {"a": [{"b": ORDER}]}), "_target_"),
    "an order in scene": (changed("scene.radius", ORDER), "scene.radius"),
    "an order for scene": (changed("scene._target_", f"{__name__}.ran"), "scene._target_"),
    "an order for model": (changed("model._target_", f"{__name__}.ran"), "model._target_"),
    "an order in resolution": (changed("resolution.target_size", ORDER), "resolution.target_size"),
    "an order for a name": (changed("model.name", ORDER), "model.name"),
    "an order at the top": (changed("extra", ORDER), "extra"),
    "gopen": (
        changed("model.net.rotation", {"_target_": "webdataset.gopen", "url": "pipe:touch owned"}),
        "rotation._target_",
    ),
    "another network": (changed("model.net._target_", f"{__name__}.ran"), "model.net._target_"),
    "a function": (changed("model.net._target_", "os.system"), "os.system"),
    "a network that is none": (changed("model.net._target_", ["lgm.models.LGM"]), "model.net._target_"),
    "a name with a call": (changed("model.net._target_", "lgm.models.LGM()"), "model.net._target_"),
    "a class for an order": (changed("model.net._target_", {"_target_": f"{__name__}.ran"}), "_target_"),
    **{
        f"{key} in net": (changed(f"model.net.{key}", value), key)
        for key, value in {
            "_partial_": True,
            "_args_": [["touch owned"]],
            "_recursive_": False,
            "_convert_": "all",
        }.items()
    },
    "a variable": (changed("model.net.rotation", ENV), "model.net.rotation"),
    "a variable in a name": (changed("model.name", f"a {ENV}"), "model.name"),
    "a variable in a list": (changed("scene.background", [1.0, ENV, 1.0]), "scene.background"),
    "a variable for scene": (changed("scene", ENV), "scene"),
    "a variable for a key": (changed(("model", "net", ENV), 1), "model.net"),
    "a resolver": (changed("model.name", "${lgm.asset:../..}"), "model.name"),
    "an unknown key in net": (changed("model.net.width", 1), "model.net.width"),
    "an unknown key in model": (changed("model.net2", 1), "model.net2"),
    "an unknown key in scene": (changed("scene.extra", 1), "scene.extra"),
    "an unknown key in resolution": (changed("resolution.extra", 1), "resolution.extra"),
    "a string for a number": (changed("model.net.input_size", "16"), "model.net.input_size"),
    "a number for a boolean": (changed("model.net.mid_attention", 1), "model.net.mid_attention"),
    "a boolean for a number": (changed("model.net.num_input_views", True), "num_input_views"),
    "a fraction for channels": (changed("model.net.down_channels", [32.5, 32]), "down_channels"),
    "a number for a list": (changed("model.net.down_channels", 32), "model.net.down_channels"),
    "an unknown choice": (changed("model.net.anchors", "anchors"), "model.net.anchors"),
    "an unknown attention": (changed("model.net.attention", "flash"), "model.net.attention"),
    "null for a number": (changed("model.net.input_size", None), "model.net.input_size"),
    "channels of 20,000": (changed("model.net.down_channels", [20_000, 20_000]), "down_channels"),
    "channels that the file has not": (changed("model.net.down_channels", [4096, 8192]), "of another shape"),
    "levels without end": (changed("model.net.down_channels", [32] * 1000), "down_channels"),
    "levels that are not there": (
        changed("model.net", {**NET, "down_channels": [32] * 5, "down_attention": [False] * 5}),
        "missing",
    ),
    "channels below one": (changed("model.net.down_channels", [-32, 32]), "down_channels"),
    "images of a gigapixel": (changed("model.net.input_size", 2**20), "model.net.input_size"),
    "targets of a gigapixel": (changed("resolution.target_size", 10**6), "resolution.target_size"),
    "a whole number of 400 digits": (changed("resolution.target_size", 10**400), "resolution.target_size"),
    "a radius of nothing": (changed("scene.radius", 0.0), "scene.radius"),
    "a lens of 180 degrees": (changed("scene.fov_y_deg", 179.9999999), "scene.fov_y_deg"),
    "a background of two channels": (changed("scene.background", [1.0, 1.0]), "scene.background"),
    "a name of many lines": (changed("model.name", "a\nb"), "model.name"),
    "a missing value": (changed("model.name", "???"), "model.name"),
    "lists in lists": (changed("model.net.rotation", nested(80)), "nested"),
    "no network": ({**RECORD, "model": {"name": "micro"}}, "model.net"),
    "no scene": ({key: RECORD[key] for key in ("model", "resolution")}, "scene"),
    "a list": ([RECORD], "record"),
    "a number": (3, "model, scene and resolution"),
}
# What JSON can say and Python's containers need not.
HOSTILE_TEXT = {
    "no JSON": "{",
    "NaN": json.dumps(changed("scene.radius", float("nan"))),
    "infinity": json.dumps(changed("model.net.scale_bounds", [0.0, float("inf")])),
    "infinity by digits": json.dumps(RECORD).replace("49.1", "1e999"),
    "2,000 lists": "[" * 2000 + "]" * 2000,
    "100,000 lists": "[" * 100_000 + "]" * 100_000,
    "half a character": json.dumps(changed("model.name", "x")).replace('"x"', '"\\ud800"'),
    "whole numbers of 5,000 digits": json.dumps(RECORD).replace("49.1", "9" * 5000),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_record_is_refused_by_every_door(kind, doors, weights, run_config, tmp_path):
    record, named = HOSTILE[kind]
    config = {**run_config, **record} if isinstance(record, dict) and len(record) >= 3 else record
    for path in (
        as_safetensors(tmp_path / "weights.safetensors", weights, record),
        as_checkpoint(tmp_path / "run.ckpt", weights, config),
    ):
        for door in doors.all_of(path):
            line = refused(door, path)
            assert named in line, line


@pytest.mark.parametrize("kind", HOSTILE_TEXT)
def test_hostile_json_is_refused_by_every_door(kind, doors, weights, tmp_path):
    path = as_safetensors(tmp_path / "weights.safetensors", weights, HOSTILE_TEXT[kind])
    for door in doors.all_of(path):
        refused(door, path)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"config": {"loss": {"terms": {"rgb": {"_target_": "os.system('x')"}}}}}, "_target_"),
        ({"config": {"loss": ENV}}, "config.loss"),
        ({"config": {"note": ORDER}}, "note"),
        ({"config": {"model": {"net": {"rotation": ORDER}}}}, "rotation"),
        ({"before": {"before": {"devices": ENV}}}, "devices"),
        ({"before": ORDER}, "_target_"),
        ({"step": "7"}, "step"),
        ({"cost": 1}, "cost"),
        ([1], "training"),
        ({"config": nested(100)}, "nested"),
    ],
)
def test_hostile_words_about_the_training_are_refused(words, named, doors, weights, tmp_path):
    path = as_safetensors(tmp_path / "w.safetensors", weights, RECORD, lgm_training=json.dumps(words))
    for door in (doors.from_pretrained, doors.export, doors.init_from):
        line = refused(door, path)
        assert named.rpartition(".")[2] in line, line


@pytest.mark.parametrize(
    "metrics", [{"canonical4": {"psnr": ORDER}}, {ENV: {}}, {"canonical4": ENV}, {"canonical4": 1}, [], ORDER]
)
def test_hostile_words_about_metrics_are_refused(metrics, doors, weights, tmp_path):
    path = as_safetensors(tmp_path / "w.safetensors", weights, RECORD, lgm_metrics=json.dumps(metrics))
    for door in (doors.from_pretrained, doors.export, doors.evaluate):
        refused(door, path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss", ENV),
        ("note", ORDER),
        ("loss", {"_target_": "a b"}),
        ("data", nested(100)),
        ("train", {3.5: 1}),
    ],
)
def test_the_rest_of_a_runs_record_is_data_too(key, value, doors, weights, run_config, tmp_path):
    path = as_checkpoint(tmp_path / "run.ckpt", weights, {**run_config, key: value})
    for door in doors.all_of(path):
        refused(door, path)


def test_what_is_small_in_a_file_and_endless_to_walk(doors, weights, run_config, tmp_path):
    laughs: list = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]
    itself: dict = {}
    itself["itself"] = itself
    for value in (laughs, itself):
        path = as_checkpoint(tmp_path / "run.ckpt", weights, {**run_config, "loss": value})
        assert "nested too deeply" in refused(doors.evaluate, path)
        path = as_checkpoint(tmp_path / "run.ckpt", weights, {**run_config, "note": {"_target_": value}})
        refused(doors.from_pretrained, path)


def test_a_run_whose_record_could_not_be_read_does_not_begin(training):
    check_recordable(training, chosen_network(training))
    for key, value in (
        ("model.net.rotation", {"_target_": "x.Y"}),
        ("scene.extra", 1),
        ("model.net.width", 2),
    ):
        cfg = copy.deepcopy(training)
        OmegaConf.update(cfg, key, value, force_add=True)
        with pytest.raises(ValueError, match=f"a checkpoint of this run could not be read: .*{key}"):
            check_recordable(cfg, chosen_network(cfg))


# Ordinary files.

LATER = ("anchors", "draft_elevations_deg", "scale_bounds")  # arguments that were added after others


def without(*keys: str) -> dict:
    return {key: value for key, value in NET.items() if key not in keys}


OLDER = {
    "as of today": RECORD,
    "of the first version": changed(
        "model.net",
        {key: value for key, value in NET.items() if key not in ("anchors", "kernels", *list(NET)[-4:])},
    ),
    "with positions": changed(
        "model.net", {**{key: value for key, value in NET.items() if key != "anchors"}, "positions": "free"}
    ),
    "without other sizes": {**RECORD, "resolution": {"target_size": 16, "num_target_views": 6}},
    "by the name of the module": changed("model.net._target_", "lgm.models.lgm.LGM"),
    "without a name": changed("model.net", without("_target_")),
}


@pytest.mark.parametrize("kind", OLDER)
def test_records_of_every_version_load(kind, weights, run_config, evaluation, tmp_path):
    record = OLDER[kind]
    for path in (
        as_safetensors(tmp_path / "weights.safetensors", weights, record),
        as_checkpoint(tmp_path / "run.ckpt", weights, {**run_config, **record}),
    ):
        loaded = LGM.from_pretrained(path)
        assert torch.equal(loaded.conv.bias, weights["conv.bias"])
        assert loaded.anchors == ("pixels" if "anchors" in record["model"]["net"] else "none")
        cfg = copy.deepcopy(evaluation)
        adopt(cfg, read_weights(path).config)
        built = build_net(cfg)
        assert type(built) is LGM and built.anchors == loaded.anchors
        assert plain(cfg)["resolution"]["target_size"] == 16


def test_positions_on_rays_have_no_equal_today(weights, doors, tmp_path):
    net = {**without("anchors"), "positions": "rays"}
    path = as_safetensors(tmp_path / "weights.safetensors", weights, changed("model.net", net))
    assert "model.net.positions='rays'" in refused(doors.from_pretrained, path)


def test_weights_that_come_along_load_with_their_history():
    found = read_weights("mini")
    assert found.training["before"]["config"]["loss"]["_target_"] == "lgm.losses.CompositeLoss"
    assert found.metrics["canonical4"]["num_objects"] == 77
    assert LGM.from_pretrained(find_weights("mini")).anchors == "hull"


def test_a_run_of_before_is_taken_by_every_door(weights, run_config, training, tmp_path):
    config = {**run_config, "freeze": [], "optimizer": {**run_config["optimizer"]}}
    cost = {"TrainingCost": {"device_minutes": 1.5, "devices": "1 × CPU", "before": {"step": 3}}}
    ema = {"state_dict": weights, "num_updates": 3}
    path = as_checkpoint(tmp_path / "run.ckpt", weights, config, callbacks=cost, ema=ema)
    check_resume(training, build_net(training), path, LGM)
    exported = read_weights(export(read_weights(path), tmp_path / "exported", torch.float32))
    assert exported.kind == "ema" and exported.training["before"] == {"step": 3}
    assert exported.training["config"]["optimizer"]["_target_"] == "lgm.training.optim.adamw"
    training.init_from = str(path)
    assert start(training, build_net(training), LGM)["step"] == 7


def test_scene_and_resolution_are_those_of_the_configuration(training):
    for section, schema in (("scene", Scene), ("resolution", Resolution)):
        assert set(plain(training)[section]) == set(schema.__annotations__)


def test_networks_and_sections_of_the_configuration_are_known():
    """A new network stands in NETWORKS, and a new group that is built in BUILT, or no record of it loads."""
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        targets = re.findall(r"^\s*_target_: (\S+)", path.read_text(), re.MULTILINE)
        group = path.relative_to(ROOT / "configs").parts[0].removesuffix(".yaml")
        if group == "model":
            assert set(targets) <= set(NETWORKS), f"{path.name}: lgm.models.registry.NETWORKS"
        elif targets and group not in ("train", "evaluate", "app", *OF_HYDRA):
            assert group in BUILT, f"{path.name}: lgm.models.records.BUILT"


# Networks of one's own.


def own_record(**changes) -> dict:
    return changed("model.net", {**NET, "_target_": f"{__name__}.Net", **changes})


def with_model(evaluation, model=(), **net):
    cfg = copy.deepcopy(evaluation)
    net = {"_target_": f"{__name__}.Net", **net}
    OmegaConf.update(cfg, "model", {**dict(model), "net": net}, force_add=True)
    return cfg


def test_a_network_of_ones_own_is_chosen(weights, run_config, doors, evaluation, tmp_path):
    path = as_checkpoint(tmp_path / "run.ckpt", weights, {**run_config, **own_record()})
    for door in doors.all_of(path):
        assert f"model.net._target_={__name__}.Net" in refused(door, path)
    assert type(Net.from_pretrained(path)) is Net
    cfg = with_model(evaluation)  # its name alone: arguments are the record's
    adopt(cfg, read_weights(path, network=chosen_network(cfg)).config, chosen_network(cfg))
    assert type(build_net(cfg)) is Net and cfg.model.net.input_size == 16
    cfg = with_model(evaluation, {"name": "micro"}, **without("_target_"))
    adopt(cfg, read_weights(path, network=chosen_network(cfg)).config, chosen_network(cfg))
    assert type(build_net(cfg)) is Net
    cfg.model.net.anchors = "hull"
    with pytest.raises(ValueError, match=r"holds another network .*model\.net\.anchors pixels → hull"):
        adopt(cfg, read_weights(path, network=chosen_network(cfg)).config, chosen_network(cfg))


def test_arguments_for_a_network_of_ones_own_are_checked_by_its_signature(weights, tmp_path):
    for changes, named in (
        ({"rotation": ORDER}, "rotation"),
        ({"width": 3}, "width"),
        ({"input_size": "16"}, "input"),
    ):
        path = as_safetensors(tmp_path / "weights.safetensors", weights, own_record(**changes))
        assert named in refused(Net.from_pretrained, path)


def test_another_network_than_the_record_names(weights, evaluation, tmp_path, caplog):
    path = as_safetensors(tmp_path / "weights.safetensors", weights, RECORD)
    assert type(Net.from_pretrained(path)) is Net
    assert "was trained as lgm.models.LGM and is read as Net" in caplog.text
    cfg = with_model(evaluation)
    with pytest.raises(ValueError, match=r"another network .*model\.net\._target_ lgm\.models\.LGM → .*Net"):
        adopt(cfg, read_weights(path, network=chosen_network(cfg)).config, chosen_network(cfg))


def test_a_name_that_leads_nowhere(evaluation):
    cfg = with_model(evaluation)
    for name, said in (("mylab.Net", "mylab"), ("os.sep", "not a network"), ("lgm.models.LGMM", "LGMM")):
        cfg.model.net._target_ = name
        with pytest.raises(ValueError, match=f"model.net._target_={name} .*{said}"):
            chosen_network(cfg)


# Files.


def rezipped(path: Path, compression=zipfile.ZIP_STORED, **members: bytes) -> None:
    """The archive again, with other contents for members whose names end so."""
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, members.get(name.rpartition("/")[2].replace(".", "_"), content))


def spread(tensor: torch.Tensor) -> torch.Tensor:
    """Any shape out of one number: its strides are 0."""
    return torch.zeros(1).expand(tensor.shape)


def header(path: Path, size: int | None = None, **changes) -> None:
    """A .safetensors with another header."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    known = {**json.loads(content[8 : 8 + length]), **changes}
    text = json.dumps(known).encode()
    path.write_bytes(
        (len(text) if size is None else size).to_bytes(8, "little") + text + content[8 + length :]
    )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


TOO_LARGE = 10**15
BROKEN_SAFETENSORS = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "a page": lambda path: path.write_bytes(b"<html>not found</html>" * 9),
    "a header of petabytes": lambda path: header(path, size=TOO_LARGE),
    "a tensor of petabytes": lambda path: header(
        path, x={"dtype": "F32", "shape": [TOO_LARGE], "data_offsets": [0, 4 * TOO_LARGE]}
    ),
    "a shape beyond 64 bits": lambda path: header(
        path, x={"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}
    ),
    "offsets backwards": lambda path: header(path, x={"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}),
    "a type that is none": lambda path: header(path, x={"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}),
    "metadata that are no text": lambda path: header(path, __metadata__={"lgm_config": {"model": 1}}),
    "metadata that are no UTF-8": lambda path: path.write_bytes(
        path.read_bytes().replace(b"micro", b"mi\xff\xfero")
    ),
    "one tensor more": lambda path: header(path, x={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
    "a kind that is none": lambda path: header(path, __metadata__={"lgm_weights": "avg"}),
}


@pytest.mark.parametrize("kind", BROKEN_SAFETENSORS)
def test_a_broken_safetensors_is_one_line(kind, doors, weights, tmp_path):
    path = as_safetensors(tmp_path / "weights.safetensors", weights, RECORD)
    BROKEN_SAFETENSORS[kind](path)
    for door in doors.all_of(path):
        refused(door, path)


def content_of(path: Path, **changes) -> None:
    content = torch.load(path, weights_only=True)
    torch.save({**content, **changes}, path)


def state_of(path: Path, name: object, value: object) -> None:
    state = torch.load(path, weights_only=True)["state_dict"]
    content_of(path, state_dict={**state, name: value})


class Runs:
    """What unpickling would call."""

    def __reduce__(self):
        return ran, ("unpickled",)


BROKEN_CHECKPOINTS = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "a page": lambda path: path.write_bytes(b"<html>not found</html>" * 9),
    "a pickle": lambda path: torch.save({"state_dict": {}}, path, _use_new_zipfile_serialization=False),
    "code": lambda path: torch.save({"state_dict": {}, "config": Runs()}, path),
    "code in a state": lambda path: content_of(path, optimizer_states=[Runs()]),
    "a pickle that is none": lambda path: rezipped(path, data_pkl=b"\x80\x02hello"),
    "a pickle of lists": lambda path: rezipped(path, data_pkl=b"\x80\x02" + b"]" * (5 << 20) + b"."),
    "lists in lists": lambda path: rezipped(path, data_pkl=b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b"."),
    "compressed": lambda path: rezipped(path, zipfile.ZIP_DEFLATED),
    "a list": lambda path: torch.save([1], path),
    "no config": lambda path: torch.save({"state_dict": {}}, path),
    "a config that is none": lambda path: content_of(path, config="config"),
    "a state that is none": lambda path: content_of(path, state_dict=3),
    "a version that is none": lambda path: content_of(path, schema_version="1"),
    "a number for a tensor": lambda path: state_of(path, "net.conv.bias", 3),
    "a name that is none": lambda path: state_of(path, 3, torch.zeros(1)),
    "another shape": lambda path: state_of(path, "net.conv.bias", torch.zeros(15)),
    "one tensor more": lambda path: state_of(path, "net.x", torch.zeros(1)),
    "a sparse tensor": lambda path: state_of(path, "net.conv.bias", torch.zeros(14).to_sparse()),
    "a tensor of no numbers": lambda path: state_of(path, "net.conv.bias", torch.empty(14, device="meta")),
    "a tensor out of one number": lambda path: state_of(path, "net.conv.bias", spread(torch.zeros(14))),
    "a tensor of petabytes": lambda path: state_of(
        path, "net.conv.bias", torch.zeros(1).as_strided((10**8, 10**7), (0, 0))
    ),
    "EMA weights that are none": lambda path: content_of(path, ema=[1]),
    "EMA weights of another network": lambda path: content_of(
        path, ema={"state_dict": {"x": torch.zeros(1)}, "num_updates": 1}
    ),
    "EMA weights out of one number": lambda path: content_of(
        path, ema={"state_dict": {"x": spread(torch.zeros(14))}, "num_updates": 1}
    ),
    "callbacks that are none": lambda path: content_of(path, callbacks=[1]),
}


@pytest.mark.parametrize("kind", BROKEN_CHECKPOINTS)
def test_a_broken_checkpoint_is_one_line(kind, doors, weights, run_config, tmp_path):
    path = as_checkpoint(tmp_path / "run.ckpt", weights, run_config)
    BROKEN_CHECKPOINTS[kind](path)
    for door in doors.all_of(path):
        assert "weights_only" not in refused(door, path)  # torch's advice is to turn it off


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite(value, doors, weights, run_config, tmp_path):
    bias = torch.full((14,), value, dtype=torch.float64)
    for path in (
        as_safetensors(tmp_path / "weights.safetensors", {**weights, "conv.bias": bias}, RECORD),
        as_checkpoint(tmp_path / "run.ckpt", {**weights, "conv.bias": bias}, run_config),
    ):
        for door in (doors.init_from, doors.from_pretrained, doors.export):
            assert "conv.bias is not finite" in refused(door, path)


@pytest.mark.parametrize(
    "names", [["unet.down_blocks.x.nets.0.conv1.bias"], [f"unet.down_blocks.{10**9}.a"], []]
)
def test_tensors_without_a_record_that_are_no_lgm(names, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({name: torch.zeros(1) for name in names}, path)
    refused(LGM.from_pretrained, path)


def test_tensors_without_a_record_ask_for_no_more_than_they_are(weights, tmp_path):
    """Widths are read off biases: a wide one costs nothing in the file, and 40 GB as a network."""
    wide = {"unet.down_blocks.0.nets.0.conv1.bias", "unet.down_blocks.1.nets.0.conv1.bias"}
    grown = {name: torch.zeros(65_536) if name in wide else tensor for name, tensor in weights.items()}
    save_file(grown, tmp_path / "weights.safetensors")
    assert "of another shape" in refused(LGM.from_pretrained, tmp_path / "weights.safetensors")
