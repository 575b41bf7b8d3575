"""Masking of credentials in text: URLs with a password or a signature, commands with a key, the
environment's.

`masked` stands wherever text leaves a program: in log records (`mask_logs`), in error lines and `error.log`,
in what a run records of its configuration (`masked_values`: config.yaml, `.hydra/`, checkpoints, loggers),
in reports. What the program works with stays as it was given: nothing reads a masked value back.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from functools import lru_cache
from typing import Any

MASK = "***"
# Parameters of a query that are no credentials; the value of any other name may be one. A plain value only:
# a URL within a URL has a `%`.
_HARMLESS_PARAMETERS = (
    *("alt", "dl", "download", "format", "page", "raw"),
    *("file", "filename", "id", "name", "path", "uid"),
    *("ref", "rev", "revision", "version", "versionid"),
)
_HARMLESS_VALUE = re.compile(r"[\w./~-]{0,64}")
# user:password@ and token@. The second form has a `/`, `?`, `#` or blank in the password, which no URL may
# have and a person types; a port's digits, or a blank behind the colon, are no password.
_USERINFO = re.compile(
    r"://(?:[^\s/?#'\"<>]*@|[^\s/:@\[]*:(?!\s|\d{1,5}(?:[/?#\s,;:)\]'\"]|$))[^\n@]{0,200}@(?:[^\s/@]*@)*)"
)
_QUERY = re.compile(
    r"(://[^\s?#]{0,2000})([?#]\S*)"
)  # bounded: text of `://` alone takes no square of its length
_PARAMETER = re.compile(r"([?#&;])([^?#&;=]*)(=?)([^?#&;]*)")
_PUNCTUATION = "'\"`),.;:]}>"
_SECRET_NAME = (
    r"(?:[\w.-]*(?:password|passwd|passphrase|secret|token|credentials?|signature"
    r"|(?:api|access|account|private|shared|secret)[_-]?key(?:[_-]?id)?)|(?:[\w.-]*[_.-])?(?:pwd|sig|sas|auth))"
)
_VALUE = r"(?:'[^'\n]*'|\"[^\"\n]*\"|[^\s&;,'\"}\]]+)"
_NO_SECRET = r"(?!(?:\d+|null|none|true|false)\b|\*\*\*)"
_COMMANDS = (
    # name=value and name:value; 'name': 'value'
    (
        re.compile(rf"(?i)(?<![\w.-])({_SECRET_NAME}(?:=|:(?=\S)|['\"]\s*:\s*)){_NO_SECRET}{_VALUE}"),
        rf"\1{MASK}",
    ),
    # --secret-access-key value
    (re.compile(rf"(?i)(?<!\S)(--?{_SECRET_NAME}\s+){_NO_SECRET}(?!-){_VALUE}"), rf"\1{MASK}"),
    # curl's and wget's -H 'Authorization: …'
    (
        re.compile(
            r"(?i)\b((?:proxy-)?authorization|cookie|x-[\w-]{0,60}(?:key|token|secret|auth)[\w-]{0,60})\s*:\s*[^\n'\"]+"
        ),
        rf"\1: {MASK}",
    ),
    (re.compile(r"(?i)\b(bearer )\s*[\w.~+/=-]{6,}"), rf"\1{MASK}"),
    # curl -u user:password, lftp -u user,password
    (re.compile(r"(?<!\S)(-u|-U|--user|--proxy-user)([ =]*)['\"]?[^\s:,'\"]+[:,]\S+"), rf"\1\2{MASK}"),
    (re.compile(r"(\bsshpass\s+-p\s*)\S+"), rf"\1{MASK}"),
)
_SECRET_VARIABLE = re.compile(
    r"(?i)(?:.*_)?(?:TOKEN|SECRET|PASS(?:WORD|WD|PHRASE)?|KEY|SAS|CONNECTION_STRING)(?:_ID)?|.*APIKEY"
)
_SHORTEST_SECRET = 8  # characters of a variable's value: a shorter one stands in words by chance


def masked(text: object) -> str:
    """The text with `***` in the place of each credential: passwords and tokens before a URL's host, the
    parameters behind its `?` (but for harmless ones, e.g. `id`), keys and passwords in commands
    (`pipe:curl -u …`), and values of the environment's credentials (AWS_SECRET_ACCESS_KEY, HF_TOKEN, …)."""
    text = str(text)
    if "://" in text:
        text = _USERINFO.sub(f"://{MASK}@", text)
        text = _QUERY.sub(_masked_query, text)
    for pattern, replacement in _COMMANDS:
        text = pattern.sub(replacement, text)
    for name in os.environ:
        if not _names_credential(name):  # before its value is asked for: a record has thousands of texts
            continue
        value = os.environ.get(name, "")
        # Seldom a match, and then no path: a variable may name the file that holds the key.
        if (
            len(value) >= _SHORTEST_SECRET and value in text and not os.path.exists(value)  # noqa: PTH110 - Path.exists raises where a name is too long
        ):
            text = text.replace(value, MASK)
    return text


@lru_cache(maxsize=1024)
def _names_credential(variable: str) -> bool:
    return _SECRET_VARIABLE.fullmatch(variable) is not None


def masked_values(values: Any) -> Any:
    """Nested dicts, lists and tuples with their texts masked, and what is called a password, token or key."""
    if isinstance(values, dict):
        return {
            key: MASK if _names_secret(key) and isinstance(value, str) and value else masked_values(value)
            for key, value in values.items()
        }
    if isinstance(values, list | tuple):
        return type(values)(masked_values(value) for value in values)
    return masked(values) if isinstance(values, str) else values


def mask_error(error: BaseException) -> None:
    """Mask the messages of an exception and of those it came from, in place: a traceback prints them."""
    seen: set[int] = set()
    rest: list[BaseException | None] = [error]
    while rest:
        current = rest.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        rest += [current.__cause__, current.__context__]
        current.args = tuple(masked(value) if isinstance(value, str) else value for value in current.args)
        if isinstance(current, OSError):  # which prints these instead
            for name in ("strerror", "filename", "filename2"):
                if isinstance(value := getattr(current, name), str):
                    setattr(current, name, masked(value))


def mask_logs() -> None:
    """Mask each log record of this process, and of those forked from it, whatever handler writes it; may be
    called again."""
    make_record = logging.getLogRecordFactory()
    if getattr(make_record, "is_masking", False):
        return

    def make_masked_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        try:
            record.msg, record.args = masked(record.getMessage()), ()
        except (TypeError, ValueError, KeyError):  # arguments that do not fit: logging itself says so
            return record
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = masked("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        return record

    make_masked_record.is_masking = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_masked_record)


def _masked_query(match: re.Match[str]) -> str:
    query = match[2].rstrip(_PUNCTUATION)
    return match[1] + _PARAMETER.sub(_masked_parameter, query) + match[2][len(query) :]


def _masked_parameter(match: re.Match[str]) -> str:
    mark, name, equals, value = match.groups()
    is_harmless = name.lower() in _HARMLESS_PARAMETERS and _HARMLESS_VALUE.fullmatch(value)
    # A bare fragment is a place on a page, a bare query may be a token.
    if is_harmless or (not equals and (mark == "#" or not name)):
        return match[0]
    return f"{mark}{name}={MASK}" if equals else f"{mark}{MASK}"


def _names_secret(key: object) -> bool:
    return isinstance(key, str) and re.fullmatch(_SECRET_NAME, key, re.IGNORECASE) is not None
