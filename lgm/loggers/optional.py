"""Optional packages of loggers."""

from importlib.util import find_spec


def require(package: str, extra: str = "logging") -> None:
    """Raise ValueError, now and in one line, where a logger's package is missing."""
    if find_spec(package) is None:
        raise ValueError(
            f"logger={package} needs the package {package}, which is not installed: "
            f"pip install 'lgm-training[{extra}]', or choose logger=csv"
        )
