"""Errors in one line: faults of foreign files named, messages made printable, credentials masked."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from lgm.masking import masked

_LONGEST = 300  # characters of a foreign message or name: a header may hold 10 kB of them
_MASKED_WHOLE = 20_000


class RunStopped(BaseException):
    """The program was asked to end. No `Exception`: what tolerates a failure on one object must not
    tolerate this.

    at_once: nothing was finished first. step: the optimizer step that training stands after, on all
    ranks; None outside of training. saved: a checkpoint holds that step.
    """

    def __init__(self, signal_number: int, step: int | None = None, at_once: bool = False) -> None:
        super().__init__(signal_number, step)
        self.signal_number = signal_number
        self.step = step
        self.at_once = at_once
        self.saved = False

    def __str__(self) -> str:
        name = signal.Signals(self.signal_number).name
        if self.step is None:
            return f"stopped by {name}"
        return f"stopped by {name} {'in' if self.at_once else 'after'} step {self.step + self.at_once}"

    @property
    def exit_code(self) -> int:
        """As a shell counts a process that a signal has ended."""
        return 128 + self.signal_number


class Named(ValueError):
    """A fault whose message names the file, object or record already; `reading` passes it on as it is."""


@contextmanager
def reading(
    what: object,
    remedy: str = "",
    kind: type[ValueError] = ValueError,
    verb: str = "read",
    passing: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Context for reading a foreign file: whatever its reader raises becomes one line that names the file.

        with reading(path, "pack the data set again"):
            content = json.loads(path.read_bytes())

    what: names the file, e.g. its path, or "object 'a': view 3". remedy: what to do about it, said last.
    kind: the class of the error, e.g. `lgm.data.schema.sample.BrokenSample`. verb: what cannot be done to it.
    passing: further classes that pass, e.g. OSError where the disk may be at fault, and not the file.

    Errors pass unchanged that name the file themselves: `Named` and its subclasses (BrokenSample, …), a
    ValueError whose message has `what` in it, FileNotFoundError. So does what is no fault of the file:
    KeyboardInterrupt, SystemExit, RunStopped. Anything else becomes `kind`, for there is no list of what
    readers raise: OverflowError, RecursionError, MemoryError, struct.error, LinAlgError, SyntaxError, …
    """
    try:
        yield
    except (Named, FileNotFoundError, *passing):  # type: ignore[misc]
        raise
    except Exception as error:
        name = shown(what)
        if isinstance(error, ValueError) and name and (name in str(error) or str(what) in str(error)):
            raise
        end = f"; {remedy}" if remedy else ""
        raise kind(f"{name} cannot be {verb}: {_cause(error)}{end}") from error


def _cause(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    message = shown(first_line(error))
    # "'c2w'" or "4" alone say nothing: the type does.
    return f"{type(error).__name__}: {message}" if isinstance(error, LookupError | TypeError) else message


def first_line(error: object) -> str:
    """The first line of an exception's message that says anything, or its type where it has no message;
    credentials are masked."""
    # A KeyError's own text is its key in quotes.
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    lines = (line.strip() for line in str(message).splitlines())
    return masked(next((line for line in lines if line), type(error).__name__))


def shown(text: object, longest: int = _LONGEST) -> str:
    """Text from elsewhere as one printable line: control characters, line breaks, lone surrogates and marks
    that turn the direction of writing are escaped as Python does, credentials are masked, and its middle is
    left out beyond `longest` characters."""
    text = str(text)
    if len(text) > _MASKED_WHOLE:  # a file's worth, of which the ends are shown
        text = f"{text[: _MASKED_WHOLE // 2]} … {text[-_MASKED_WHOLE // 2 :]}"
    text = masked(text)  # before it is cut: half a signature would not be known for one
    if len(text) > longest:
        text = f"{text[: longest * 2 // 3]} … {text[-longest // 3 :]}"
    return text if text.isprintable() else "".join(x if x.isprintable() else repr(x)[1:-1] for x in text)
