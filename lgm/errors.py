"""What went wrong, in one line."""


def first_line(error: object) -> str:
    """The first line of an exception's message that says anything, or its type where it has no message."""
    # A KeyError's own text is its key in quotes.
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    lines = (line.strip() for line in str(message).splitlines())
    return next((line for line in lines if line), type(error).__name__)
