"""Image metrics (PSNR, SSIM, LPIPS, alpha IoU, depth), baselines, and their reduction over all ranks."""

from lgm.metrics.baselines import nearest_input, nearest_input_index
from lgm.metrics.gather import gather_items
from lgm.metrics.image import PSNR_CAP_DB, alpha_iou, depth_error, lpips, psnr, ssim, ssims
from lgm.metrics.late import Late
from lgm.metrics.measurement import Measurement, PerceptualNets, novel_targets
from lgm.metrics.protocol import Protocol
from lgm.metrics.released import released_psnr

__all__ = [
    "PSNR_CAP_DB",
    "Late",
    "Measurement",
    "PerceptualNets",
    "Protocol",
    "alpha_iou",
    "depth_error",
    "gather_items",
    "lpips",
    "nearest_input",
    "nearest_input_index",
    "novel_targets",
    "psnr",
    "released_psnr",
    "ssim",
    "ssims",
]
