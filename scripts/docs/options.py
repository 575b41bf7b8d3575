"""The reference of options: each key of configs/ with its default value and its comment, as one page.

    python scripts/docs/options.py        prints the page

A comment belongs to the key on its line, or to the key below it; the comments at the head of a file describe
the file. Keys are written as they are typed on the command line: a file of the group `data/cache` sets
`data.cache.*`, one with `# @package _global_` sets what it names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

_PACKAGE = "# @package _global_"
# Whatever Hydra composes files from, and the classes that they choose: not options to be set.
_PLUMBING = ("defaults", "hydra", "_partial_", "_convert_", "_recursive_")
INTRODUCTION = """# Every option

Each option of `train.py` and `evaluate.py`: its full name, its default value, and what it does. This page is
generated from the comments of the files in `configs/`; `python train.py --cfg job` prints the values that a
command would use.

- `group=file` chooses a file of a group: `model=big`, `data/cache=memory`.
- `key=value` sets one value: `train.max_steps=2000`. A key that no file has yet needs a plus sign:
  `+data.filters.author.deny=[someone]`.
- `null` is no value. A default such as `${train.max_steps}` follows another option until it is set.
- An `experiment` or `debug` file holds deltas: the table lists the values that it changes.
"""


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


def options_page(configs: Path) -> str:
    """The page, as Markdown: the two programs first, then a section for each group."""
    parts = [INTRODUCTION]
    groups: dict[str, list[Path]] = {}
    for path in sorted(configs.rglob("*.yaml")):
        groups.setdefault("/".join(path.relative_to(configs).parts[:-1]), []).append(path)
    for group, paths in sorted(groups.items()):
        title = f"Group `{group}`" if group else "The two programs"
        parts.append(f"\n## {title}\n")
        for path in paths:
            parts += _section(read_config(path, configs))
    return "\n".join(parts) + "\n"


def _section(file: ConfigFile) -> Iterator[str]:
    yield f"\n### `{file.choice}`\n"
    for line in file.description:  # a command stands on a line of its own
        yield f"\n`{line}`\n" if line.startswith("python ") else _escaped(line)
    if file.options:
        yield "\n| option | default | |"
        yield "|---|---|---|"
        for option in file.options:
            default = option.default.replace("|", "\\|")
            yield f"| `{option.key}` | {f'`{default}`' if default else ''} | {_escaped(option.comment)} |"


def _escaped(text: str) -> str:
    """A comment as Markdown that shows its characters as they are; what stands in backticks stays code."""
    parts = re.split(r"(`[^`]*`)", text.replace("|", "&#124;"))
    return "".join(part if part.startswith("`") else re.sub(r"[<>*_\[\]]", _entity, part) for part in parts)


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


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


if __name__ == "__main__":
    print(options_page(Path(__file__).parents[2] / "configs"))
