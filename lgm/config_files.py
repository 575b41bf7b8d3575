"""The files of configs/ as text: where they lie, and what their comments say of each key.

A comment belongs to the key on its line, or to the key below it; the comments at the head of a file describe
the file. Keys are written as they are typed on the command line: a file of the group `data/cache` sets
`data.cache.*`, one with `# @package _global_` sets what it names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

import lgm

_PACKAGE = "# @package _global_"
# Whatever Hydra composes files from, and the classes that they choose: not options to be set.
_PLUMBING = ("defaults", "hydra", "_partial_", "_convert_", "_recursive_")


def configs_folder() -> Path:
    """The folder of train.yaml, evaluate.yaml and their groups: beside train.py in a checkout, in this
    package once it is installed."""
    package = Path(lgm.__file__).parent
    installed, checkout = package / "configs", package.parent / "configs"
    return installed if installed.is_dir() else checkout


@dataclass(frozen=True)
class Option:
    """One key: its full name, its default as written in the file, and the comment beside or above it."""

    key: str
    default: str
    comment: str


@dataclass(frozen=True)
class ConfigFile:
    """One file of configs/: how it is chosen on the command line, its description and its options."""

    choice: str
    description: list[str]
    options: list[Option]


def read_config(path: Path, configs: Path) -> ConfigFile:
    """A file of configs/ with its comments."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    relative = path.relative_to(configs)
    group = "/".join(relative.parts[:-1])
    is_global = not group or text.startswith(_PACKAGE)
    prefix = "" if is_global else group.replace("/", ".") + "."
    head = 1 if text.startswith(_PACKAGE) else 0
    description = [line.lstrip("#").strip() for line in lines[head : _head_length(lines)]]
    # Nodes with their lines, which loaded values have lost; the comments are found by these.
    root = yaml.compose(text)
    options = list(_options(root, lines, prefix)) if isinstance(root, yaml.MappingNode) else []
    choice = f"{group}={relative.stem}" if group else relative.name
    return ConfigFile(choice, description, options)


def _options(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Option]:
    for key, value in node.value:
        name = key.value
        if name in _PLUMBING:
            continue
        line = key.start_mark.line
        comment = _comment_of(lines, key, value)
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            if comment:
                yield Option(f"{prefix}{name}", "", comment)
            yield from _options(value, lines, f"{prefix}{name}.")
        elif name == "_target_":
            yield Option(f"{prefix}{name}", value.value, comment)
        else:
            first, last = value.start_mark, value.end_mark
            # As written: 1e-4 would come back as a string, and an interpolation resolved.
            default = lines[line][first.column : last.column] if first.line == last.line else value.value
            yield Option(f"{prefix}{name}", str(default), comment)


def _comment_of(lines: list[str], key: yaml.Node, value: yaml.Node) -> str:
    """The comment above the key, and the one behind its value."""
    number, column = key.start_mark.line, key.start_mark.column
    above: list[str] = []
    for text in reversed(lines[:number]):
        # A comment of another indentation belongs to another key.
        if not text.strip().startswith("#") or len(text) - len(text.lstrip()) != column:
            break
        above.insert(0, text.strip().lstrip("#").strip())
    if number - len(above) <= _head_length(lines):  # they are the file's own
        above = []
    block = isinstance(value, yaml.MappingNode) and not value.flow_style
    end = key.end_mark if block else value.end_mark
    rest = lines[end.line][end.column :] if end.line == number else ""
    beside = rest.partition("#")[2].strip()
    return " ".join([*above, beside]).strip()


def _head_length(lines: list[str]) -> int:
    """How many lines at the top of a file describe it."""
    end = 1 if lines and lines[0].startswith(_PACKAGE) else 0
    while end < len(lines) and lines[end].startswith("#"):
        end += 1
    return end
