"""Pictures of what models do. Same class order and colours everywhere, readable in grey and by the colour-blind.

What takes arrays returns a `matplotlib.figure.Figure`, or draws into axes given to it; `save` writes it. What must run
a model is in `dfer_zoo.figures.trained`, `heatmaps` and `landscape`.
"""

from dfer_zoo.figures.clips import clip_strip, gallery, probability_bars
from dfer_zoo.figures.comparison import draw_comparison, forest, forests
from dfer_zoo.figures.curves import read_history, training_curves
from dfer_zoo.figures.features import embed, separation, tsne
from dfer_zoo.figures.heatmaps import Evidence, grad_cam, heat_maps
from dfer_zoo.figures.instances import Bag, instance_tables
from dfer_zoo.figures.interaction import Interaction, interactions
from dfer_zoo.figures.landscape import landscapes, loss_surface
from dfer_zoo.figures.results import (
    class_distribution,
    confusion_matrices,
    confusion_matrix,
    labels,
    recall_bars,
    recalls,
)
from dfer_zoo.figures.style import (
    CLASS_COLORS,
    CLASS_MARKERS,
    RIGHT,
    WRONG,
    class_handles,
    new_figure,
    run_colors,
    run_lines,
    save,
    styled,
)

__all__ = [
    "CLASS_COLORS",
    "CLASS_MARKERS",
    "RIGHT",
    "WRONG",
    "Bag",
    "Evidence",
    "Interaction",
    "class_distribution",
    "class_handles",
    "clip_strip",
    "confusion_matrices",
    "confusion_matrix",
    "draw_comparison",
    "embed",
    "forest",
    "forests",
    "gallery",
    "grad_cam",
    "heat_maps",
    "instance_tables",
    "interactions",
    "labels",
    "landscapes",
    "loss_surface",
    "new_figure",
    "probability_bars",
    "read_history",
    "recall_bars",
    "recalls",
    "run_colors",
    "run_lines",
    "save",
    "separation",
    "styled",
    "training_curves",
    "tsne",
]
