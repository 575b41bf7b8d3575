"""Do the cameras fit the images? Silhouettes of pairs of views answer, then colours, without a mesh."""

from data_tools.reprojection.check import Tally, reproject
from data_tools.reprojection.judge import Verdict, judge
from data_tools.reprojection.outlines import Outlines, find_outlines

__all__ = ["Outlines", "Tally", "Verdict", "find_outlines", "judge", "reproject"]
