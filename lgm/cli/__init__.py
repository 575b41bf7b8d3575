"""The programs behind `train.py` and `evaluate.py`: check, build, run."""

try:
    import lightning  # noqa: F401
except RuntimeError as error:
    # Seen with the registry's torchvision beside a CPU build of torch: torchmetrics imports it,
    # lightning imports torchmetrics, and "operator torchvision::nms does not exist" helps nobody.
    if "torchvision" not in str(error):
        raise
    raise SystemExit(
        f"error: the installed torchvision does not fit the installed torch ({error}); "
        "this program needs none: pip uninstall -y torchvision"
    ) from None
