"""`--help`: each key with its default and its comment in configs/; and the keys nearest to a misspelt one."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser  # Hydra's flags and what it says of them
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lgm.config_files import configs_folder, read_config

_REFUSED = re.compile(r"Could not override '([^'@]+)(?:@[^']*)?'")
_ALIKE = 0.7  # of a name and a misspelt one, by difflib's ratio
_MOST_NAMES = 3
_KEY = re.compile(r"( *)([A-Za-z_][\w-]*):(?: |$)")


def help_text(program: str, options: argparse.Namespace) -> str:
    """What `--help` prints: examples, the groups and their files, each key as it stands with the options that
    were given beside `--help`, and Hydra's flags.

    program: a file of configs/, without its suffix. options: as parsed by Hydra's own parser.

    Raises HydraException for options that do not compose.
    """
    folders = _folders(options)
    cfg = _composed(program, options.overrides, options)
    template, choices = str(cfg.hydra.help.template), dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg.hydra
    comments = _comments(program, choices, folders)
    text = template.replace("$APP_CONFIG_GROUPS", "\n".join(_groups(folders)))
    text = text.replace("$CONFIG", "\n".join(_annotated(OmegaConf.to_yaml(cfg), comments)))
    flags = "\n".join(_flags())
    return f"{text.rstrip()}\n\nFlags, of Hydra:\n\n{flags}\n"


def nearest(message: str, program: str, options: argparse.Namespace) -> list[str]:
    """The keys and groups of a program that are most like the one which a message of Hydra's refuses; none
    where nothing is alike."""
    match = _REFUSED.search(message)
    if match is None:
        return []
    wrong = match[1]
    known = [
        *_keys_without(wrong, program, options),
        *(line.split(":")[0] for line in _groups(_folders(options))),
    ]
    scores = {name: _likeness(wrong, name) for name in known}
    best = sorted((name for name in scores if scores[name] >= _ALIKE), key=lambda name: -scores[name])
    return best[:_MOST_NAMES]


def _likeness(wrong: str, name: str) -> float:
    """Of whole names or, a little less, of their last parts: sections are left out as often as misspelt."""
    wrong_end, end = (re.split(r"[./]", text)[-1] for text in (wrong, name))
    whole, last = SequenceMatcher(None, wrong, name).ratio(), SequenceMatcher(None, wrong_end, end).ratio()
    return max(whole, 0.5 * last + 0.5 * whole if "." in wrong else 0.95 * last)


def _keys_without(wrong: str, program: str, options: argparse.Namespace) -> Iterator[str]:
    """All keys with what was typed but for the misspelt option, or with nothing that was typed."""
    others = [
        text for text in options.overrides if text.lstrip("+~").partition("=")[0].split("@")[0] != wrong
    ]
    for overrides in (others, []):
        try:
            cfg = _composed(program, overrides, options)
        except (HydraException, OmegaConfBaseException):
            continue
        with open_dict(cfg):
            del cfg.hydra
        yield from _dotted(OmegaConf.to_container(cfg, resolve=False))
        return


def _dotted(values: Any, at: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{at}{key}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{at}{key}.")


def _composed(program: str, overrides: Sequence[str], options: argparse.Namespace) -> DictConfig:
    searchpath = (
        [f"hydra.searchpath=['file://{Path(options.config_dir).absolute()}']"] if options.config_dir else []
    )
    # A sweep's values are not composed together: of each the first.
    singles = [re.sub(r"^(\w[\w./]*=[^\[{'\"(,]+),.*", r"\1", text) for text in overrides]
    with initialize_config_dir(str(configs_folder()), version_base="1.3"):
        return compose(program, overrides=[*searchpath, *singles], return_hydra_config=True)


def _folders(options: argparse.Namespace) -> list[Path]:
    """A person's own first."""
    return [*([Path(options.config_dir)] if options.config_dir else []), configs_folder()]


def _groups(folders: list[Path]) -> Iterator[str]:
    """`group: file, file, …`, a line each."""
    files: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.rglob("*.yaml"):
            if group := path.relative_to(folder).parent.as_posix().strip("."):
                files.setdefault(group, set()).add(path.stem)
    for group, names in sorted(files.items()):
        yield f"{group}: {', '.join(sorted(names))}"


def _flags() -> Iterator[str]:
    for action in get_args_parser()._actions:
        if action.option_strings and action.dest != "shell_completion":  # whose text is pages long
            yield f"  {', '.join(action.option_strings):22} {' '.join(str(action.help).split())}"


def _comments(program: str, choices: dict[str, Any], folders: list[Path]) -> dict[str, str]:
    """The comments of the files in use, by key: a file's own before those of the files that it is made of."""
    comments: dict[str, str] = {}
    waiting = [(group, name) for group, names in choices.items() for name in _names(names)]
    done: set[tuple[str, str]] = set()
    waiting.append(("", program))
    while waiting:
        group, name = waiting.pop(0)
        path = next((file for folder in folders if (file := folder / group / f"{name}.yaml").is_file()), None)
        if group.startswith("hydra") or path is None or (group, name) in done:
            continue
        done.add((group, name))
        folder = next(folder for folder in folders if folder in path.parents)
        for option in read_config(path, folder).options:
            if option.comment:
                comments.setdefault(option.key, option.comment)
        waiting += _parents(group, path)
    return comments


def _parents(group: str, path: Path) -> Iterator[tuple[str, str]]:
    """The files that a file names alone in its defaults list: `- base`, `- /data/base@data`."""
    content = yaml.safe_load(path.read_text("utf-8")) or {}
    for entry in content.get("defaults") or []:
        if isinstance(entry, str) and entry != "_self_":
            name = entry.partition("@")[0]
            folder, _, stem = (name[1:] if name.startswith("/") else f"{group}/{name}").rpartition("/")
            yield folder, stem


def _names(names: Any) -> list[str]:
    return [] if names is None else [str(name) for name in names] if not isinstance(names, str) else [names]


def _annotated(text: str, comments: dict[str, str]) -> Iterator[str]:
    """Lines of yaml, each with the comment of its key."""
    at: list[tuple[int, str]] = []  # indentation and name of the keys that a line stands in
    for line in text.splitlines():
        if (match := _KEY.match(line)) is not None:
            indent = len(match[1])
            at = [*(entry for entry in at if entry[0] < indent), (indent, match[2])]
            if comment := comments.get(".".join(name for _, name in at)):
                line = f"{line}  # {comment}"
        yield line
