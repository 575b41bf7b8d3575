import pytest

from lgm.errors import first_line


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
