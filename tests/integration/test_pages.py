"""The pages do not rot: their commands run or at least compose, options exist, links lead somewhere.

Pages are the README, docs/ and those that lie beside what they describe. Each test is a loop over all of
them and names every fault with its page.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lgm.cli.validate import check_training, plan_batches

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data_tools/README.md")),
        ROOT / "lgm/assets/weights/README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
}
TEN_MESHES = "docs/tutorials/ten-meshes.md"
IN_PYTHON = "docs/how-to/python.md"
# What makes the walked page short; nothing that it says is replaced.
SHORTER = {
    "data_tools.render": ["--resolution", "64", "--views", "12", "--workers", "1"],
    "data_tools.pack": ["--workers", "1"],
    "train.py": ["debug=short", "model=nano", "trainer=cpu"],
    "evaluate.py": ["trainer=cpu", "callbacks.measure.lpips.download=false"],
}
# What an option of a sentence may hang on: the program, and what was chosen beside it.
BASES = [
    ("train", ["loss=paper", "callbacks=train_ema", "logger=wandb"]),
    ("train", ["model=transformer"]),
    ("train", ["loss=hed", "callbacks=viewer", "data/augment=light", "data/cache=memory", "renderer=triton"]),
    ("evaluate", ["ckpt=x", "callbacks=[evaluate,turntable,views]"]),
    ("evaluate", ["ckpt=x", "data=images", "data.path=x", "data/background=white"]),
    ("evaluate", ["ckpt=x", "data=prompts", "data.prompts=[x]", "multiview=mvdream"]),
    ("evaluate", ["ckpt=x", "data=images", "data.path=x", "multiview=imagedream"]),
    ("evaluate", ["ckpt=x", "data=prompts", "data.prompts=[x]", "multiview=mesh_views"]),
    ("app", ["ckpt=x"]),
]
# Of Hydra, pip, ruff, PyTorch's and Slurm's launchers, and the original program, which one page translates.
FLAGS_OF_OTHERS = set(
    re.findall(
        r"\S+",
        """--help --cfg --config-dir --info --multirun --no-deps --no-build-isolation --nnodes
        --nproc_per_node --ntasks --ntasks-per-node --node_rank --signal --all --resume --num_epochs
        --batch_size --lr
        --lambda_lpips --gradient_accumulation_steps --gradient_clip --mixed_precision
        --prob_grid_distortion --prob_cam_jitter --output_size --num_views --num_workers --input_size
        --down_channels --fovy --cam_radius --data_mode --fancy_video --config_file
        --local-dir --shm-size --check --nproc-per-node --max-restarts --rdzv-backend --rdzv-endpoint
        --rdzv-conf --local-addr --node-rank --master-addr --master-port --requeue""",
    )
)


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def filled_in(text: str) -> str:
    """A form's blanks, `<run_dir>` or `…`, as a word."""
    return re.sub(r"<[^<>\n]+>|…", "filled_in", text)


def commands(text: str) -> list[list[str]]:
    """The words of each command line in the shell blocks, comments left out; `\\` joins lines."""
    lines = [
        shlex.split(filled_in(line), comments=True)
        for block in blocks("bash", text)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [words for words in lines if words]


# What the programs of an installation start.
PROGRAMS = {
    "lgm-train": ["train.py"],
    "lgm-evaluate": ["evaluate.py"],
    "lgm-infer": ["-m", "lgm.cli.infer"],
    "lgm-consolidate": ["-m", "lgm.cli.consolidate"],
    "lgm-doctor": ["-m", "lgm.doctor"],
    "lgm-mesh": ["-m", "lgm.meshing"],
    "lgm-app": ["-m", "lgm.app"],
    "lgm-view": ["-m", "lgm.viewer"],
}


def typed(page: str) -> Iterator[list[str]]:
    """The words after `python` of each command of a page, in blocks, tables and sentences."""
    inline = re.findall(r"`((?:python|lgm-\w+) [^`\n]+)`", without_code(PAGES[page]))
    for words in [*commands(PAGES[page]), *(shlex.split(filled_in(line)) for line in inline)]:
        if "python" in words[:2] or words[0].startswith(("AWS_", "LGM_")):  # behind a variable or two
            yield words[words.index("python") + 1 :]
        elif words[0] == "torchrun":
            yield words[words.index("train.py") :]
        elif words[0] == "lgm-data" and len(words) > 1:
            yield ["-m", f"data_tools.{words[1]}", *words[2:]]
        elif words[0] in PROGRAMS:
            yield [*PROGRAMS[words[0]], *words[1:]]


def composed(config: str, overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(config, overrides=["run_dir=/tmp/run", *overrides])


@functools.cache
def fault_of_command(script: str, words: tuple[str, ...]) -> str | None:
    """Why `train.py` or `evaluate.py` would refuse these options; None where it would not."""
    overrides = [word for word in words if word != "-m"]
    if any(word.startswith("--") for word in words):  # `--help`, `--cfg job`, `--config-dir`: Hydra's own
        return None
    if "-m" in words:  # of a sweep the first job
        overrides = [word.partition(",")[0] for word in overrides]
    try:
        cfg = composed(script.removesuffix(".py"), overrides)
        if script == "train.py":
            assert plan_batches(cfg)
            if cfg.trainer.accelerator != "gpu":
                assert check_training(cfg)
        elif OmegaConf.is_missing(cfg, "ckpt"):
            return "ckpt is not set"
    except (HydraException, OmegaConfBaseException, ValueError, FileNotFoundError) as error:
        return str(error).splitlines()[0]
    return None


def test_every_hydra_command_composes():
    faults, count = [], 0
    for page in PAGES:
        for words in typed(page):
            if words[:2] == ["-m", "lgm.app"]:
                words = ["app.py", *words[2:]]
            if words[0] in ("train.py", "evaluate.py", "app.py"):
                count += 1
                if fault := fault_of_command(words[0], tuple(words[1:])):
                    faults.append(f"{page}: python {shlex.join(words)}: {fault}")
    assert not faults, "\n".join(faults)
    assert count > 40


def inline_options(page: str) -> set[str]:
    """Each `key=value …` in backticks; an ellipsis or an empty value is a form to fill in."""
    spans = re.findall(r"`([^`\n]+)`", without_code(PAGES[page]))
    option = r"(?:\+?[a-z_]\w*(?:[./]\w+)*=[^\s…<>='\"]+)"
    quoted = f"(?:{option}|'{option}')"
    return {span for span in spans if re.fullmatch(f"{quoted}(?: {quoted})*", span)}


@functools.cache
def base(number: int) -> DictConfig:
    return composed(*BASES[number])


def is_value(cfg: DictConfig, key: str) -> bool:
    """Whether a dotted key stands in a composed configuration."""
    node = cfg
    for name in key.split("."):
        if isinstance(node, ListConfig) or not isinstance(node, DictConfig) or name not in node:
            return False
        node = node._get_node(name)
    return True


def is_choice(word: str) -> bool:
    """Whether an option names a file of a group, or several of them."""
    group, _, names = word.lstrip("+").partition("=")
    folder = ROOT / "configs" / group
    return folder.is_dir() and all(
        (folder / f"{name}.yaml").is_file() for name in names.strip("[]").split(",")
    )


@functools.cache
def fault_of_options(span: str) -> str | None:
    """Why no program takes these options, of any of the bases; None where one does."""
    words = shlex.split(span)
    try:
        keys = [override.key_or_group for override in OverridesParser.create().parse_overrides(words)]
    except HydraException as error:
        return str(error).splitlines()[0]
    choices = [is_choice(word) for word in words]
    if all(choices):  # files of configs/, each of which test_configs.py composes
        return None
    if not any(choices):  # values alone: no need to compose again
        for number in range(len(BASES)):
            if all(is_value(base(number), key) for key in keys):
                return None
    reasons = []
    for config, overrides in BASES:
        try:
            assert composed(config, [*overrides, *words])
            return None
        except (HydraException, OmegaConfBaseException) as error:
            reasons.append(str(error).splitlines()[0])
    return "; ".join(sorted(set(reasons)))


def test_every_option_in_a_sentence_exists():
    """In training or in evaluation, with what the option hangs on."""
    faults = [
        f"{page}: {span}: {fault}"
        for page in PAGES
        for span in sorted(inline_options(page))
        if (fault := fault_of_options(span))
    ]
    assert not faults, "\n".join(faults)
    assert sum(len(inline_options(page)) for page in PAGES) > 100


class Parsed(Exception):
    """A command's arguments were read; the command itself is not run."""


def stopping_after(parse: Callable) -> Callable:
    def stop(self, arguments=None, namespace=None):
        parse(self, arguments, namespace)
        raise Parsed

    return stop


def module_of(words: list[str]) -> ModuleType | None:
    """The program that a command starts, where it is one of ours that reads its arguments by argparse."""
    is_ours = words[0] == "-m" and words[1].split(".")[0] in ("lgm", "data_tools")
    if is_ours and words[1] != "lgm.app":  # whose options are Hydra's
        path = ROOT / words[1].replace(".", "/")
        name = f"{words[1]}.__main__" if (path / "__main__.py").is_file() else words[1]
        return importlib.import_module(name)
    if words[0].startswith("scripts/") and (ROOT / words[0]).is_file():
        sys.path.insert(0, str((ROOT / words[0]).parent))  # as for a script that is started
        spec = importlib.util.spec_from_file_location(f"page_{Path(words[0]).stem}", ROOT / words[0])
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look for their module there
        spec.loader.exec_module(module)
        return module if hasattr(module, "main") else None
    return None


def test_every_other_command_takes_its_arguments(monkeypatch, capsys):
    """data_tools, scripts and the doctor: up to where the arguments are read."""
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(
            argparse.ArgumentParser, name, stopping_after(getattr(argparse.ArgumentParser, name))
        )
    monkeypatch.setattr(sys, "path", list(sys.path))
    seen, faults = set(), []
    for page in PAGES:
        for words in typed(page):
            filled = tuple(words)
            if filled in seen or (module := module_of(words)) is None:
                continue
            seen.add(filled)
            monkeypatch.setattr(sys, "argv", [filled[0], *filled[2 if filled[0] == "-m" else 1 :]])
            try:
                module.main()
                faults.append(f"{page}: {shlex.join(words)} reads no arguments")
            except Parsed:
                pass
            except SystemExit as end:
                if end.code:
                    reason = capsys.readouterr().err.strip().splitlines()[-1:]
                    faults.append(f"{page}: python {shlex.join(words)}: {reason}")
    assert not faults, "\n".join(faults)
    assert len(seen) > 20


def test_every_flag_in_a_sentence_exists():
    sources = [
        *(ROOT / "data_tools").rglob("*.py"),
        *(ROOT / "scripts").rglob("*.py"),
        *(ROOT / "lgm").rglob("*.py"),
    ]
    flags = {flag for path in sources for flag in re.findall(r'"(--[a-z][\w-]*)"', path.read_text("utf-8"))}
    faults = [
        f"{page}: {flag}"
        for page, text in PAGES.items()
        for flag in sorted(set(re.findall(r"`[^`\n]*?(--[a-z][\w-]*)[^`\n]*`", without_code(text))))
        if flag not in flags | FLAGS_OF_OTHERS
    ]
    assert not faults, "\n".join(faults)


def messages() -> str:
    """All text of the programs; pieces of a message joined, and an ellipsis for what is filled in."""
    sources = [path for room in ("data_tools", "lgm") for path in (ROOT / room).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    return re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s*\n\s*f?"', "", text))


def test_troubleshooting_quotes_what_the_programs_say():
    """People search for a message as they see it: what a heading quotes is in the sources."""
    said = messages()
    headings = re.findall(r"^### .*`.*$", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    quoted = [quote for heading in headings for quote in re.findall(r"`([^`]+)`", heading)]
    faults = [
        f"{quote}: {piece.strip()!r}"
        for quote in quoted
        for piece in re.split("…|'val'|'xformers'", quote)
        if piece.strip() not in said
    ]
    assert not faults, "\n".join(faults)
    assert len(quoted) > 8


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


GENERATED = {"docs/reference/options.md"}  # by scripts/docs/hooks.py


def test_every_link_leads_somewhere():
    faults = []
    for page, text in PAGES.items():
        for target in sorted(set(re.findall(r"\]\(([^)\s]+)\)", without_code(text)))):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / page).parent / path if path else ROOT / page
            if Path(os.path.relpath(file, ROOT)).as_posix() in GENERATED:
                continue
            if not file.exists() or (anchor and anchor not in anchors(file)):
                faults.append(f"{page}: {target}")
    assert not faults, "\n".join(faults)


def test_every_file_of_a_command_exists():
    faults, file = [], r"(?:scripts|tests|lgm|data_tools)/[\w/]+\.\w+"
    for page in PAGES:
        for words in [*commands(PAGES[page]), *map(list, typed(page))]:
            names = [word for word in words if re.fullmatch(file, word)]
            faults += [f"{page}: {name}" for name in names if not (ROOT / name).is_file()]
    assert not faults, "\n".join(faults)


def test_every_path_in_a_sentence_exists():
    path_of = r"`((?:lgm|configs|scripts|tests|data_tools|docs)/[^`\s]*)`"
    faults = [
        f"{page}: {path}"
        for page, text in PAGES.items()
        for path in sorted(set(re.findall(path_of, text)))
        if "<" not in path and not (ROOT / path).exists()
    ]
    assert not faults, "\n".join(faults)


def test_the_readme_is_short():
    assert len(PAGES["README.md"].split()) <= 1200


def test_lines_can_be_read():
    """No long ones but in tables; code in a sentence ends on its line, where the tests above see it."""
    faults = []
    for page in (page for page in PAGES if page.startswith(("README", "docs/"))):
        for number, line in enumerate(PAGES[page].splitlines(), 1):
            if len(line) > 120 and not line.lstrip().startswith("|"):
                faults.append(f"{page}:{number}: {len(line)} characters")
        for line in without_code(PAGES[page]).splitlines():
            if line.count("`") % 2:
                faults.append(f"{page}: {line}: code goes on in the next line")
    assert not faults, "\n".join(faults)


def test_python_in_the_pages_is_of_this_program():
    """Each block compiles, and what it imports of this repository exists; that of conventions holds, too."""
    count = 0
    for page, text in PAGES.items():
        for program in blocks("python", text):
            count += 1
            compile(program, page, "exec")
            for module, names in re.findall(r"^from ((?:lgm|data_tools)[\w.]*) import (.+)$", program, re.M):
                imported = importlib.import_module(module)
                assert all(hasattr(imported, name.strip()) for name in names.split(",")), f"{page}: {module}"
    assert count >= 4
    (program,) = blocks("python", PAGES["docs/explanation/conventions.md"])
    exec(compile(program, "docs/explanation/conventions.md", "exec"), {})


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
    page = PAGES[TEN_MESHES].split("\n## What to expect")[0]
    for words in commands(page):
        assert words[0] == "python"
        name = words[2] if words[1] == "-m" else words[1]
        shorter = list(SHORTER.get(name, []))
        if name == "train.py":  # the second one goes on from the first
            steps += 2
            shorter += [f"train.max_steps={steps}", "scheduler.warmup_steps=1"]
        run([str(ROOT / word) if word.endswith(".py") else word for word in words[1:]] + shorter, folder)

    for name in re.findall(r"`((?:shards|runs/mine|exported|sheet)[^`\s]*)`", page):
        pattern = re.sub(r"<[^>]+>|…", "*", name)
        assert list(folder.glob(pattern)), f"{name} was not written"
    rows = (folder / "runs/mine/metrics.csv").read_text().splitlines()
    assert rows[-1].split(",")[0] == str(steps) == "4", "the second training went on from the first"

    (folder / "use.py").write_text("\n".join(blocks("python", PAGES[IN_PYTHON])))
    run(["use.py"], folder)
    assert (folder / "object.ply").stat().st_size > 10_000


@pytest.mark.slow
def test_the_minute_of_the_readme(tmp_path):
    """Its four images of a bundled object become a .ply by lgm-infer, and in Python."""
    block = PAGES["README.md"].split("## Try it in a minute")[1].split("```")[1]
    unpack, infer = block.splitlines()[-2:]
    subprocess.run(
        ["bash", "-c", unpack.replace("lgm/assets", f"{ROOT}/lgm/assets")], cwd=tmp_path, check=True
    )
    program, *words = shlex.split(infer, comments=True)
    assert program == "lgm-infer"
    run(["-c", "from lgm.cli.infer import main; main()", *words, "trainer=cpu"], tmp_path)
    for name in re.findall(r"`(lgm-chair/[^`]+)`", PAGES["README.md"]):
        assert (tmp_path / name).is_file(), name

    (tmp_path / "use.py").write_text("\n".join(blocks("python", PAGES["README.md"])))
    run(["use.py"], tmp_path)
    assert (tmp_path / "chair.ply").stat().st_size > 100_000


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
