"""The README does not rot: its commands run or at least compose, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lgm.cli.validate import check_training, plan_batches

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WALKED = "From ten meshes to a trained model"
# What makes the walked page short; nothing that it says is replaced.
SHORTER = {
    "data_tools.render": ["--resolution", "64", "--views", "12", "--workers", "1"],
    "data_tools.pack": ["--workers", "1"],
    "train.py": ["debug=short", "model=nano", "trainer=cpu"],
    "evaluate.py": ["trainer=cpu", "callbacks.measure.lpips.download=false"],
}


def section(title: str) -> str:
    """The text between a heading and the next one."""
    return re.split(r"^## ", README.split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str = README) -> list[list[str]]:
    """The words of each command line in the shell blocks, comments left out."""
    lines = [
        shlex.split(line, comments=True) for block in blocks("bash", text) for line in block.splitlines()
    ]
    return [words for words in lines if words]


def hydra_commands() -> list[str]:
    """Each `train.py` or `evaluate.py` line of blocks, tables and sentences, once."""
    inline = re.findall(r"`(python (?:train|evaluate)\.py [^`]+)`", README)
    typed = [shlex.join(words) for words in commands() if words[1:] and words[1] in SHORTER]
    return sorted({*inline, *typed})


def inline_options() -> list[str]:
    """Each `key=value …` in backticks; an ellipsis or an empty value is a form to fill in."""
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL))
    option = r"(?:\+?[a-z_]\w*(?:[./]\w+)*=[^\s…<>='\"]+)"
    quoted = f"(?:{option}|'{option}')"
    return sorted({span for span in spans if re.fullmatch(f"{quoted}(?: {quoted})*", span)})


def composed(config: str, overrides: list[str]):
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(config, overrides=["run_dir=/tmp/run", *overrides])


@pytest.mark.parametrize("command", hydra_commands())
def test_every_command_composes(command):
    words = [re.sub(r"<[^>]+>|…", "filled_in", word) for word in shlex.split(command)]
    script, overrides = words[1], [word for word in words[2:] if word != "-m"]
    if "-m" in words:  # of a sweep the first job
        overrides = [word.partition(",")[0] for word in overrides]
    if "--" in command:  # `--help`, `--cfg job`: Hydra's own
        return
    cfg = composed(script.removesuffix(".py"), overrides)
    if script == "train.py" and cfg.trainer.accelerator != "gpu":
        assert check_training(cfg)
    elif script == "train.py":
        assert plan_batches(cfg)
    else:
        assert not OmegaConf.is_missing(cfg, "ckpt")


@pytest.mark.parametrize("options", inline_options())
def test_every_option_in_a_sentence_exists(options):
    """In training with the paper's loss and an average, or in evaluation, with all that can hang on it,
    or of one's own pictures."""
    reasons = []
    for config, base in (
        ("train", ["loss=paper", "callbacks=train_ema"]),
        ("evaluate", ["ckpt=x", "callbacks=[evaluate,turntable,views]"]),
        ("evaluate", ["ckpt=x", "data=images", "data.path=x"]),
    ):
        try:
            assert composed(config, [*base, *shlex.split(options)])
            return
        except (HydraException, OmegaConfBaseException) as error:
            reasons.append(str(error).splitlines()[0])
    pytest.fail(f"{options}: {reasons}")


def test_there_is_something_to_compose():
    assert len(hydra_commands()) > 15 and len(inline_options()) > 15


def anchors() -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_every_link_leads_somewhere(target):
    if target.startswith("#"):
        assert target[1:] in anchors()
    elif not target.startswith("https://"):
        assert (ROOT / target.partition("#")[0]).exists()


@pytest.mark.parametrize("words", commands(), ids=shlex.join)
def test_every_script_and_module_of_a_command_exists(words):
    names = [word for word in words if re.fullmatch(r"[\w/]+\.(?:py|sh)", word)]
    assert all((ROOT / name).is_file() for name in names)
    if words[:2] == ["python", "-m"] and words[2].split(".")[0] in ("lgm", "data_tools"):
        module = ROOT / words[2].replace(".", "/")
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:lgm|configs|scripts|tests|data_tools)/[^`\s]*)`", README)))
)
def test_every_path_in_a_sentence_exists(path):
    assert (ROOT / path).exists()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where the page is walked: `meshes/` with ten small ones, or a skip that says what is missing."""
    pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")
    trimesh = pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")
    from data_tools.engines import EngineUnavailable, make_engine

    try:
        make_engine("opengl").close()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    make = trimesh.creation
    meshes = {
        "chair": make.box([0.6, 1.0, 0.6]),
        "shelf": make.box([1.0, 1.0, 0.3]),
        "post": make.box([0.2, 1.0, 0.2]),
        "ball": make.icosphere(subdivisions=3),
        "gem": make.icosphere(subdivisions=1),
        "tower": make.cylinder(0.2, 1.0),
        "coin": make.cylinder(0.5, 0.1),
        "ring": make.annulus(0.3, 0.5, 0.2),
        "pill": make.capsule(1.0, 0.3),
        "hat": make.cone(0.5, 1.0),
    }
    (tmp_path / "meshes").mkdir()
    for number, (name, mesh) in enumerate(meshes.items()):
        mesh.visual.vertex_colors = [20 * number + 40, 120, 220 - 20 * number, 255]
        mesh.export(tmp_path / "meshes" / f"{name}.glb")
    return tmp_path


@pytest.mark.slow
def test_ten_meshes_become_a_model(folder):
    """Each command of the page in its order; then the page that uses the result from Python."""
    steps = 0
    for words in commands(section(WALKED)):
        assert words[0] == "python"
        name = words[2] if words[1] == "-m" else words[1]
        shorter = list(SHORTER.get(name, []))
        if name == "train.py":  # the second one goes on from the first
            steps += 2
            shorter += [f"train.max_steps={steps}", "scheduler.warmup_steps=1"]
        run([str(ROOT / word) if word.endswith(".py") else word for word in words[1:]] + shorter, folder)

    for name in re.findall(r"`((?:shards|runs/mine|exported|sheet)[^`\s]*)`", section(WALKED)):
        pattern = re.sub(r"<[^>]+>|…", "*", name)
        assert list(folder.glob(pattern)), f"{name} was not written"
    rows = (folder / "runs/mine/metrics.csv").read_text().splitlines()
    assert rows[-1].split(",")[0] == str(steps) == "4", "the second training went on from the first"

    (program,) = blocks("python", section("Use it from Python"))
    (folder / "use.py").write_text(program)
    run(["use.py"], folder)
    assert (folder / "object.ply").stat().st_size > 10_000


def run(words: list[str], folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, f"{shlex.join(words)}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
