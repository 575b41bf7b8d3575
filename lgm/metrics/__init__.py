"""What a picture is worth: values per image, what needs no training, and one sum over all ranks."""

from lgm.metrics.baselines import nearest_input, nearest_input_index, white
from lgm.metrics.gather import gather_items
from lgm.metrics.image import PSNR_CAP_DB, alpha_iou, lpips, psnr, ssim
from lgm.metrics.late import Late

__all__ = [
    "PSNR_CAP_DB",
    "Late",
    "alpha_iou",
    "gather_items",
    "lpips",
    "nearest_input",
    "nearest_input_index",
    "psnr",
    "ssim",
    "white",
]
