"""The command line before Hydra reads it: paths quoted as a shell gives them, mistakes in one line.

Hydra has a grammar for values, in which `=`, brackets, commas, quotes and letters beyond ASCII mean something
or are not allowed, `007` and `2024_10` are numbers, and `~` is nothing. A path is a path: its value is quoted
here as Hydra understands it, whatever stands in it. So is any other value that Hydra cannot read, unless it
looks like a list, a dictionary or a call that somebody mistyped.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from typing import NoReturn

import yaml
from hydra._internal.utils import get_args_parser  # its options, so that an unknown one is named in one line
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lgm.cli.faults import fault_line
from lgm.cli.help import help_text, nearest
from lgm.errors import shown
from lgm.masking import masked
from lgm.models.former_names import key_today

# Keys whose values are names of files or folders, by what stands behind the last dot.
_PATHS = frozenset(
    (
        "run_dir",
        "ckpt",
        "init_from",
        "resume",
        "path",
        "dir",
        "dirpath",
        "folder",
        "cache_dir",
        "weights_path",
        "default_root_dir",
        "storage",
        "name",
    )
)
_PLAIN_KEY = re.compile(r"\+{0,2}[A-Za-z_][\w.@/:-]*")
# What begins so is meant as a list, a dictionary or a quoted string; what is called so, as a sweep or a cast.
_STRUCTURED = re.compile(r"""[\[{'"]|(?:choice|range|interval|glob|sort|shuffle|tag|str|int|float|bool)\(""")
_KEPT = ("", "null", "???")
_FULL_ERROR, _OUR_FULL_ERROR = "HYDRA_FULL_ERROR", "LGM_FULL_ERROR"
_NOISE = (
    "See https://hydra.cc",
    "full_key:",
    "object_type=",
    "Config search path:",
    "provider=",
    "To append to your config",  # which turns a misspelt key into one without effect
)


def run(main: Callable[[], None], program: str) -> None:
    """Run a `@hydra.main` function on `sys.argv`; what Hydra refuses ends in one line, with exit code 2.

    The line for a misspelt option names the nearest keys. `--help` is `lgm.cli.help`'s.

    program: the file of configs/ that `main` composes, without its suffix.

    HYDRA_FULL_ERROR=1 shows the traceback.
    """
    # Told to show everything, Hydra raises and prints nothing. Processes that Lightning starts inherit
    # that, and what a person asked for stands in a variable of its own.
    is_asked = os.environ.setdefault(_OUR_FULL_ERROR, os.environ.get(_FULL_ERROR, "0")) == "1"
    os.environ[_FULL_ERROR] = "1"
    sys.argv[1:] = understood(sys.argv[1:])
    options = get_args_parser().parse_args(sys.argv[1:])
    try:
        if options.help:
            sys.stdout.write(help_text(program, options))
            return
        main()
    except Exception as error:
        is_of_hydra = isinstance(error, HydraException | OmegaConfBaseException | yaml.YAMLError)
        line = hydra_line(error) if is_of_hydra else fault_line(error)
        if is_asked or line is None:
            raise
        names = nearest(str(error), program, options) if is_of_hydra else []
        _refuse(f"{line}; did you mean {' or '.join(names)}?" if names else line)


def understood(arguments: list[str]) -> list[str]:
    """The same arguments with values quoted where Hydra would read another one, or none.

    Exits with one line where there is no telling what is meant.
    """
    parser = get_args_parser()
    parser.error = _refuse_option  # argparse prints the usage of all options first
    options = parser.parse_args(arguments)
    is_sweep = bool(options.multirun) or "hydra.mode=MULTIRUN" in options.overrides
    overrides = {text: _understood(text, is_sweep) for text in options.overrides}
    return [overrides.get(text, text) for text in arguments]


def _understood(text: str, is_sweep: bool) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse(f"{shown(text)}: a name that is not UTF-8 can be recorded nowhere; rename it")
    key, equals, value = text.partition("=")
    if not equals:
        if not key.startswith("~"):
            _refuse(f"{shown(text)} is not an option: options are written key=value; see --help")
        return text
    if not _PLAIN_KEY.fullmatch(key):
        return text
    key = _key_today(key)
    name = re.split(r"[./]", key)[-1]
    if name == "run_dir" and not value:
        _refuse(f"{key}= is empty; give {key}=<folder>, or leave it out")
    is_path = name in _PATHS and (name != "name" or key == "name")
    if is_sweep and (is_path or _parsed(key, value) is None):
        values = [_as_text(key, part, is_path) for part in _split(value)]
        return f"{key}={','.join(values)}"
    return f"{key}={_as_text(key, value, is_path)}"


def _key_today(key: str) -> str:
    """A key under today's name, with one line where it had another."""
    plus = key[: len(key) - len(key.lstrip("+"))]
    if (today := plus + key_today(key.lstrip("+"))) != key:
        sys.stderr.write(f"{key} is now {today}\n")
    return today


def _as_text(key: str, value: str, is_path: bool) -> str:
    """One value in the form in which Hydra reads what was typed."""
    parsed = _parsed(key, value)
    if not is_path:
        if parsed is None and not _STRUCTURED.match(value):
            return quoted(value)
        return value
    if value in _KEPT:
        return value
    if parsed is None and value[:1] == value[-1:] == '"' and len(value) > 1:
        return quoted(value[1:-1])  # as Lightning passes the folder to the processes that it starts
    if value.startswith("~"):  # which shells replace at the beginning of a word alone
        return quoted(os.path.expanduser(value))  # noqa: PTH111 - a Path loses what it does not need
    if parsed is None:
        return quoted(value)
    if value[:1] in "'\"" or "\\" in value or "${" in value:
        return value  # in Hydra's own form already
    is_read = not parsed.is_sweep_override() and parsed.value() == value and isinstance(parsed.value(), str)
    return value if is_read else quoted(value)


def _parsed(key: str, value: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(f"{key}={value}")
    except HydraException:
        return None


def _split(value: str) -> list[str]:
    """At the commas of a sweep: not at those within quotes or brackets."""
    parts, depth, quote = [""], 0, ""
    for position, character in enumerate(value):
        is_escaped = position > 0 and value[position - 1] == "\\"
        if quote:
            quote = "" if character == quote and not is_escaped else quote
        elif character in "'\"" and not parts[-1].strip():
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character == "," and depth == 0 and not is_escaped:
            parts.append("")
            continue
        parts[-1] += character
    return parts


def quoted(value: str) -> str:
    """In single quotes, as Hydra's grammar has it: a backslash counts only before a quote and at the end."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value) + "'"


def hydra_line(error: BaseException) -> str:
    """The message of Hydra or OmegaConf on one line, with a form that works for a value it cannot read."""
    lines = [line for part in (error, error.__cause__) if part is not None for line in str(part).splitlines()]
    messages: list[str] = []
    for line in lines:
        text = line.strip().removesuffix(".")
        if text and set(text) != {"^"} and not text.startswith(_NOISE) and text not in messages:
            # Hydra lists alternatives one a line behind a tab.
            if line.startswith("\t") and messages:
                messages[-1] += ("" if messages[-1].endswith(":") else ",") + f" {text}"
            else:
                messages.append(text)
    message = "; ".join(messages) or type(error).__name__
    if (unread := getattr(error, "override", None)) and unread not in message:
        message = f"{unread}: {message}"
    elif (key := getattr(error, "full_key", None)) and key not in message:
        message = f"{key}: {message}"
    if unread and "=" in unread:
        key, _, value = unread.partition("=")
        message += f"; as text: {_in_shell(f'{key}={quoted(value)}')}"
    return message


def _in_shell(text: str) -> str:
    """Quoted for a shell, in the form that is read more easily where there is a choice."""
    return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'


def _refuse_option(message: str) -> NoReturn:
    _refuse(f"{message}; options are written key=value; see --help")


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"error: {shown(masked(message), longest=2000)}\n")
    sys.exit(2)
