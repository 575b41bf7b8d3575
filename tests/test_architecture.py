"""The house keeps its shape: imports one way, short files, nothing heavy by accident."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

from lgm.metrics import psnr

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # import-linter brings it

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "lgm").rglob("*.py")) + sorted((ROOT / "data_tools").rglob("*.py"))
OF_LGM = [path for path in SOURCES if path.is_relative_to(ROOT / "lgm")]
# The contracts of import-linter: the only list of layers. From the top down; beside each other with `|`.
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
ONE_WAY = next(contract for contract in CONTRACTS if contract["name"] == "Imports flow one way")
LAYERS = [[room.strip(" ()") for room in layer.split("|")] for layer in ONE_WAY["layers"]]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
HEAVY = ["torchvision", "gsplat", "triton", "xformers", "wandb", "diffusers", "lpips"]


def imported_rooms(path: Path) -> set[str]:
    text = path.read_text()
    named = re.findall(r"^\s*(?:from|import) lgm\.(\w+)", text, re.MULTILINE)
    lines = re.findall(r"^\s*from lgm import ([\w, ]+)", text, re.MULTILINE)
    return {*named, *(room.strip() for line in lines for room in line.split(","))}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "lgm").parts[0].removesuffix(".py")


def test_imports_flow_one_way():
    for path in OF_LGM:
        room = room_of(path)
        for other in imported_rooms(path) - {room} if room != "__init__" else ():
            assert LEVEL[other] > LEVEL[room], f"{path}: {room} may not import {other}"
            assert (room, other) != ("models", "rendering"), f"{path}: models never see rendering"
            if room == "losses":
                allowed = ("types", "kernels", "errors", "files", "masking", "tensor_files")
                assert other in allowed, f"{path}: losses see only types and fused operations"


def test_import_linter_agrees():
    # In a process of its own, so that what it loads is not what these tests loaded.
    result = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_data_tools_know_cameras_and_the_schema_alone():
    """By module, where import-linter's contract goes by room."""
    tools = [path for path in SOURCES if path.is_relative_to(ROOT / "data_tools")]
    found = {
        name
        for path in tools
        for name in re.findall(r"^\s*(?:from|import) (lgm\.[\w.]*)", path.read_text(), re.MULTILINE)
    } | {f"lgm.{room}" for path in tools for room in imported_rooms(path) if room != "data"}
    free = tuple(f"lgm.{x}" for x in ("cameras", "errors", "files", "glb", "lights", "masking", "stopping"))
    of_data = {name for name in found if not name.startswith(free)}
    lines = (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith("| `data_tools` |")]
    named = {f"lgm.data.{name}" for name in re.findall(r"`([\w.]+)`", row.partition("`lgm.data`")[2])}
    assert of_data == named, "CONTRIBUTING.md says otherwise"


def test_files_are_short():
    assert [path for path in SOURCES if len(path.read_text().splitlines()) > 300] == []


def test_no_prints_stubs_or_devices():
    for path in OF_LGM:
        text = path.read_text()
        assert "print(" not in text, path
        assert "NotImplementedError" not in text, path
        if room_of(path) not in ("cli", "rendering"):
            assert '"cuda"' not in text and "'cuda'" not in text, path


def test_unit_tests_mirror_the_rooms():
    rooms = {path.stem for path in (ROOT / "lgm").iterdir()} | {"data_tools", "scripts"}
    folders = {path.parent.name for path in (ROOT / "tests/unit").glob("*/__init__.py")}
    assert folders <= rooms


def named_thing_exists(name: str) -> bool:
    """`package.module.thing`: the module is there, and the thing stands in it."""
    place, parts = ROOT, name.split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    module = place / f"{parts[0]}.py" if parts else place / "__init__.py"
    if parts and module.is_file():
        parts.pop(0)
    else:
        module = place / "__init__.py"
    return module.is_file() and (not parts or re.search(rf"\b{parts[0]}\b", module.read_text()) is not None)


def test_what_a_comment_names_exists():
    for path in SOURCES:
        names = set(re.findall(r"`((?:lgm|data_tools)(?:\.\w+)+)", path.read_text()))
        assert [name for name in names if not named_thing_exists(name)] == [], path


IMPORTED = [
    "import lgm",
    "import lgm.models",
    "import lgm.rendering",
    "from lgm.rendering import GsplatRenderer, make_renderer; make_renderer()",
    "import lgm.losses.perceptual.weights as w; w.find_spec('lpips') and w.linear_weights('vgg')",
]


def test_importing_the_package_pulls_in_nothing_heavy():
    """Nor what is installed in a broken state: one Python, after each statement."""
    program = f"""
import sys
for statement in {IMPORTED}:
    exec(statement)
    print(statement, [name for name in {HEAVY} if name in sys.modules], sep=": ")
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.splitlines() == [f"{statement}: []" for statement in IMPORTED], result.stderr


def test_constants_of_the_canonical_frame_are_written_once():
    """Outside lgm/cameras/canonical.py no 49.1, and no argument for a radius or a field of view has a number
    as its default."""
    repeated, names, numbers = [], ("radius", "fov_y_deg"), (1.5, 49.1)
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name != "canonical.py":
            repeated += [
                f"{path}:{node.lineno}" for node in ast.walk(tree) if getattr(node, "value", None) == 49.1
            ]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args][::-1]
                pairs = [*zip(arguments, node.args.defaults[::-1], strict=False)]
                pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                repeated += [
                    f"{path}:{node.lineno}"
                    for argument, default in pairs
                    if argument.arg in names and getattr(default, "value", None) in numbers
                ]
    assert repeated == []


def test_one_caller_of_instantiate():
    callers = [p for p in SOURCES if "instantiate" in p.read_text()]
    assert [p.relative_to(ROOT).as_posix() for p in callers if "import instantiate" in p.read_text()] == [
        "lgm/cli/build.py"
    ]


def test_the_entry_points_stay_small():
    for name in ("train.py", "evaluate.py"):
        assert len((ROOT / name).read_text().splitlines()) <= 25


def test_shapes_in_signatures_are_checked_while_tests_run():
    with pytest.raises(jaxtyping.TypeCheckError):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 8))
