"""Generated faces: labelled clips of rendered 3-D heads in the real datasets' on-disk layouts.

No face video may be redistributed, so the data that comes with the project is rendered. `head_rig.npz` holds the
heads (licence in `LICENSE-head_rig.md`), `build_rig.py` tells how it was made.
"""

from dfer_zoo.synthetic.dataset import synthesize

__all__ = ["synthesize"]
