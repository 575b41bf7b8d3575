"""Video encoding by ffmpeg, while frames are still being rendered.

The frames of a chunk go through a pipe in one write, from a thread of their own: the renderer of the
next chunk waits neither for the pipe nor for the encoder.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from imageio_ffmpeg import get_ffmpeg_exe
from jaxtyping import UInt8
from numpy import ndarray

# Chunks that wait for the encoder; more would only take memory.
_MOST_WAITING = 2
# BT.709 in its limited range, and a note that says so: without it players guess, and colours shift.
_BT709 = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p," + (
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
_MP4 = (
    *("-vf", _BT709, "-c:v", "libx264", "-preset", "veryfast", "-crf", "18"),
    *("-movflags", "+faststart", "-f", "mp4"),  # the index first: a browser plays while it loads
)

Frames = UInt8[ndarray, "F H W 3"]
Write = Callable[[Frames], None]


class _EndedEarly(Exception):
    """An encoder takes no more. Videos are written side by side: each must know whether it was its own."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the encoder of {path.name} has ended")
        self.path = path


def ffmpeg() -> str:
    """The encoder's path: imageio's own, or what IMAGEIO_FFMPEG_EXE names.

    Raises ValueError in one line where there is none.
    """
    try:
        return get_ffmpeg_exe()
    except RuntimeError as error:
        raise ValueError(
            "videos need ffmpeg, which is not here: pip install 'imageio[ffmpeg]', or set IMAGEIO_FFMPEG_EXE "
            "to a program of your own"
        ) from error


@contextmanager
def mp4(path: Path, size: int | tuple[int, int], fps: float) -> Iterator[Write]:
    """Takes frames of size², or (width, height), until the block ends, and makes an H.264 video of
    them that plays anywhere.

    Raises OSError with the encoder's last words where it fails.
    """
    with _encoder(path, size, fps, _MP4) as write:
        yield write


@contextmanager
def gif(path: Path, size: int, fps: float, gif_size: int, gif_fps: float) -> Iterator[Write]:
    """The same as an animated .gif that repeats, of gif_size² and gif_fps, in 256 colours of its own."""
    filters = (
        f"fps={gif_fps:g},scale={gif_size}:-1:flags=area,split[a][b];"
        # Of every eighth frame: they are of one object, and counting colours takes longest.
        "[a]framestep=8,palettegen=stats_mode=full[palette];[b][palette]paletteuse=dither=sierra2_4a"
    )
    with _encoder(path, size, fps, ("-vf", filters, "-loop", "0", "-f", "gif")) as write:
        yield write


@contextmanager
def _encoder(path: Path, size: int | tuple[int, int], fps: float, output: tuple[str, ...]) -> Iterator[Write]:
    width, height = (size, size) if isinstance(size, int) else size
    command = [
        *(ffmpeg(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "pipe:0"),
        *output,
        str(path),
    ]
    with (
        # stderr goes to a file: a full pipe would block the encoder, which nothing reads until the end.
        tempfile.TemporaryFile() as words,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words) as process,
        ThreadPoolExecutor(max_workers=1) as pipe,
    ):
        waiting: deque[Future] = deque()

        def write(frames: Frames) -> None:
            if len(waiting) == _MOST_WAITING:
                with _pipe_to(path):
                    waiting.popleft().result()
            waiting.append(pipe.submit(process.stdin.write, memoryview(frames.reshape(-1))))

        ended_early = False
        try:
            yield write
            with _pipe_to(path):
                while waiting:
                    waiting.popleft().result()
                process.stdin.close()
        except BaseException as error:
            ended_early = isinstance(error, _EndedEarly) and error.path == path
            if not ended_early:  # else it says why
                process.kill()
                raise
        finally:
            with suppress(BrokenPipeError):  # of what was never written
                process.stdin.close()
        if process.wait() != 0 or ended_early:
            words.seek(0)
            lines = words.read().decode(errors="replace").strip().splitlines() or ["no word of why"]
            raise OSError(f"ffmpeg could not write {path.name} (exit code {process.returncode}): {lines[-1]}")


@contextmanager
def _pipe_to(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _EndedEarly(path) from error
