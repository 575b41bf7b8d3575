import json
import struct

import numpy as np
import pytest

from lgm.data.schema.sample import BrokenSample
from lgm.errors import Named, RunStopped, first_line, reading, shown


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\nb"), "a"),
        (ValueError("\n  \n  a  \nb"), "a"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (KeyError("conv.bias"), "conv.bias"),
        (KeyError(), "KeyError"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("\n"), "RuntimeError"),
        ("of a server\nwith more", "of a server"),
    ],
)
def test_the_first_line_that_says_something(error, line):
    assert first_line(error) == line


def raises(error):
    raise error


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda: json.loads("[" * 100_000), "is nested too deeply"),
        (lambda: raises(MemoryError()), "more memory than there is"),
        (lambda: b"\xff".decode(), "can't decode byte 0xff"),
        (lambda: struct.unpack("<Q", b"1"), "requires a buffer of 8 bytes"),
        (lambda: int(float("inf")), "cannot convert float infinity"),
        (lambda: {}["c2w"], "KeyError: c2w"),
        (lambda: None + 1, "TypeError: unsupported operand"),
        (lambda: np.linalg.inv(np.zeros((2, 2))), "Singular matrix"),
        (lambda: raises(RuntimeError("first\nsecond")), "first"),
        (lambda: raises(SyntaxError("broken PNG")), "broken PNG"),
    ],
)
def test_whatever_a_reader_raises_becomes_one_line(fault, said):
    with pytest.raises(BrokenSample) as caught, reading("a.json", "mend it", BrokenSample):
        fault()
    line = str(caught.value)
    assert line.startswith("a.json cannot be read: ") and line.endswith("; mend it") and said in line
    assert "\n" not in line and caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(1),
        RunStopped(15, 3),
        FileNotFoundError("b is missing"),
        ValueError("a.json has version 9, this program reads 1"),
        BrokenSample("object 'x': view 3 is L, expected RGBA"),
    ],
)
def test_what_names_itself_or_is_no_fault_of_the_file_passes(error):
    with pytest.raises(type(error)) as caught, reading("a.json"):
        raise error
    assert caught.value is error


def test_a_broken_sample_is_named():
    assert issubclass(BrokenSample, Named)


@pytest.mark.parametrize(
    "text", ["a\nb", "a\rb", "\x1b[31mred", "\u202eevil", "nul\0", "\udcff", "line\u2028", "x" * 10_000]
)
def test_text_from_elsewhere_is_one_printable_line(text):
    line = shown(text)
    assert line.isprintable() and len(line) < 400
    line.encode()  # a lone surrogate would fail


def test_plain_text_is_shown_as_it_is():
    assert shown("größe 中文.png") == "größe 中文.png"
