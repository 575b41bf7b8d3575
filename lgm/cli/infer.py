"""`lgm-infer`: images to an object, a video and a page by one short command (`evaluate.py data=images`)."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lgm.cli import programs
from lgm.data.captures.photos import EXTENSIONS
from lgm.files import PARTIAL_SUFFIX

_EPILOG = """\
Four images named front, right, back and left (or in the order of their names, each 90 degrees further to the
right) make an object, and so does any number of images with cameras.json, transforms.json or a COLMAP model
beside them. Backgrounds are removed by alpha, else by rembg; data/background=white is for images on white.

  lgm-infer my_chair/                          front.png right.png back.png left.png
  lgm-infer front.png right.png back.png left.png --out chair
  lgm-infer photo.png --multiview imagedream   one image: the other views are generated
  lgm-infer my_chair/ --ckpt runs/mine/checkpoints/best.ckpt data/background=white
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments of `lgm-infer` and run evaluate.py's program with them."""
    parser = argparse.ArgumentParser(
        prog="lgm-infer",
        description="Images of an object to 3D Gaussians (.ply), a turntable (.mp4) and report.html.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "images",
        nargs="+",
        help="a folder of images, or of such folders, or the images of one object; "
        "key=value sets an option of evaluate.py",
    )
    add(
        "--ckpt",
        default="mini",
        help="weights: mini (bundled), a .ckpt, an exported folder, a released .safetensors, hf:… "
        "(default: %(default)s)",
    )
    add("--out", help="folder for the results (default: lgm-<name>)")
    add("--multiview", choices=("imagedream",), help="generate the other views of each image")
    add(
        "--refine",
        type=int,
        metavar="STEPS",
        help="fit the Gaussians to the images by so many steps of Adam (50): sharper where cameras are exact",
    )
    add("--no-video", action="store_true", help="no turntable")
    add("--mesh", action="store_true", help="a textured mesh too (mesh.glb)")
    options = parser.parse_intermixed_args(arguments)  # key=value behind a flag, too
    try:
        overrides = overrides_of(options)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    # Hydra reads the process's arguments.
    sys.argv[1:] = overrides
    programs.evaluate()
    run_dir = Path(next(text.partition("=")[2] for text in overrides if text.startswith("run_dir=")))
    names = ("gaussians.ply", "mesh.glb", "turntable.mp4")
    for path in sorted(path for name in names for path in run_dir.glob(f"objects/*/{name}")):
        sys.stdout.write(f"{path}\n")


def overrides_of(options: argparse.Namespace) -> list[str]:
    """Overrides for evaluate.py; images that are named one by one are copied into `<out>/images` first.

    Raises ValueError or FileNotFoundError, in one line, for paths that are no images.
    """
    paths = [Path(text).expanduser() for text in options.images if not _is_option(text)]
    if not paths:
        raise ValueError("no images: give a folder, or the images of one object")
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give a folder of images, or an object's images")
    out = Path(options.out) if options.out else Path(f"lgm-{paths[0].resolve().stem}")
    if len(paths) == 1 and (paths[0].is_dir() or options.multiview):
        path = paths[0]
    else:
        path = _gathered(paths, out / "images" / out.resolve().name, options.multiview)
    defaults = {
        "ckpt": options.ckpt,
        "data": "images",
        "data.path": str(path),
        "run_dir": str(out),
        "callbacks": _callbacks(not options.no_video, options.mesh),
        "callbacks.measure.lpips": "null",  # half a gigabyte of weights, and mostly nothing to compare with
    }
    if options.multiview:
        defaults["multiview"] = options.multiview
    if options.refine is not None:
        defaults["refine.steps"] = str(options.refine)
    typed = [text for text in options.images if _is_option(text)]
    for text in typed:
        # A typed option replaces a default of the short command.
        defaults.pop(text.partition("=")[0], None)
    return [*(f"{key}={value}" for key, value in defaults.items()), *typed]


def _callbacks(video: bool, mesh: bool) -> str:
    names = [name for name, is_requested in (("turntable", video), ("mesh", mesh)) if is_requested]
    return f"[{','.join(names)}]" if len(names) > 1 else "".join(names) or "evaluate"


def _is_option(text: str) -> bool:
    return "=" in text and not Path(text).exists()


def _gathered(paths: list[Path], folder: Path, multiview: str | None) -> Path:
    """One folder with copies of images that lie anywhere."""
    if folders := [path for path in paths if path.is_dir()]:
        raise ValueError(f"{folders[0]} is a folder beside other paths; give one folder, or images alone")
    if wrong := [path for path in paths if path.suffix.lower() not in EXTENSIONS]:
        raise ValueError(f"{wrong[0]} is not one of {', '.join(EXTENSIONS)}")
    if len(paths) == 1 and not multiview:
        raise ValueError(
            f"{paths[0]} is one image: give four around the object, or --multiview imagedream, which "
            "generates the others"
        )
    names = [path.name for path in paths]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two images are called {twice[0]}; rename one of them")
    partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in paths:  # before the former copies go: they may be what is given
        shutil.copyfile(path, partial / path.name)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder
