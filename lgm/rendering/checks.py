"""What every renderer checks at its door."""

from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians


def check_scene(gaussians: Gaussians, cameras: Cameras, height: int, width: int, background: Tensor) -> None:
    """Shapes and devices fit each other; one ValueError line where not."""
    if len(cameras.shape) != 2 or cameras.shape[0] != gaussians.num_scenes:
        raise ValueError(
            f"Gaussians of {gaussians.num_scenes} scenes need cameras of batch shape "
            f"[{gaussians.num_scenes}, V], got {list(cameras.shape)}"
        )
    if height < 1 or width < 1:
        raise ValueError(f"a picture of height={height} and width={width} has no pixels")
    if tuple(background.shape) not in {(3,), (*cameras.shape, 3)}:
        raise ValueError(
            f"background has shape {list(background.shape)}, expected [3] or {[*cameras.shape, 3]}"
        )
    if cameras.device != gaussians.means.device:
        raise ValueError(
            f"Gaussians are on {gaussians.means.device} and cameras on {cameras.device}; move one with .to()"
        )
