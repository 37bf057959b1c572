"""Which figures there are, for which runs each can be drawn, and how: the bridge from runs to arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dfer_zoo.errors import InputError
from dfer_zoo.figures.curves import read_history, training_curves
from dfer_zoo.figures.features import tsne
from dfer_zoo.figures.heatmaps import Evidence, grad_cam, heat_maps, last_stage
from dfer_zoo.figures.instances import Bag, instance_tables
from dfer_zoo.figures.interaction import Interaction, interactions
from dfer_zoo.figures.landscape import landscapes, loss_surface, training_clips
from dfer_zoo.figures.results import class_distribution, draw_confusions, draw_recalls
from dfer_zoo.figures.trained import Track, Trained, median_clips
from dfer_zoo.results import Run, softmax
from dfer_zoo.runs import load_data

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Options:
    """How much is computed, and what shows how far it is; see `dfer_zoo.figures.command.figures`."""

    first: Run
    shown: int
    tsne_clips: int
    landscape_points: int
    landscape_clips: int
    landscape_radius: float
    seed: int
    track: Track


class Subject:
    """A run that is drawn, under a short name; its checkpoint and clips are loaded when a figure first needs them."""

    def __init__(self, run: Run, label: str) -> None:
        self.run = run
        self.label = label

    @cached_property
    def trained(self) -> Trained:
        """The chosen checkpoint and the data."""
        return Trained.load(self.run)


def spread(names: Sequence[str], most: int) -> list[str]:
    """Return at most `most` of the names, spread evenly over them."""
    return [names[i] for i in np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int))]


def labelled_clips(run: Run, most: int) -> tuple[list[str], np.ndarray]:
    """Return names of at most `most` test clips of a run, spread evenly, and their labels ``(n,)``."""
    labels_by_clip = run.predictions.set_index("clip")["label"]
    names = spread(list(labels_by_clip.index), most)
    return names, labels_by_clip[names].to_numpy()


def draw_distribution(subjects: Sequence[Subject], options: Options) -> Figure:
    """Draw the class counts of each distinct split among the runs."""
    counts: dict[str, dict[str, list[int]]] = {}
    for subject in subjects:
        data = load_data(subject.run.path)
        classes = len(data.label_names)
        splits = {
            split: np.bincount(data.clips(split)["label"], minlength=classes).tolist()
            for split in ("train", "val", "test")
        }
        if splits not in counts.values():
            counts[f"{type(data).__name__}, {data.run_name}"] = splits
    return class_distribution(counts, data.label_names)


def draw_curves(subjects: Sequence[Subject], options: Options) -> Figure:
    """Draw the training curves of the runs over each other."""
    return training_curves({subject.label: read_history(subject.run.path) for subject in subjects})


def draw_tsne(subjects: Sequence[Subject], options: Options) -> Figure:
    """Draw the features of the same test clips in every run."""
    names, ids = labelled_clips(subjects[0].run, options.tsne_clips)
    features = {}
    for subject in subjects:
        net = subject.trained.model.net
        features[subject.label] = subject.trained.over(
            names, lambda video, net=net: net(video).features, options.track, "features"
        )
    return tsne(features, ids, subjects[0].run.evaluation["classes"], options.seed)


def draw_heatmaps(subjects: Sequence[Subject], options: Options) -> Figure:
    """Draw the evidence for the true class of median clips, under each other for every run."""
    drawn = {}
    for name in options.track(median_clips(options.first, options.shown), "heat maps"):
        seen = []
        for subject in subjects:
            trained = subject.trained
            batch = trained.batch(trained.data.dataset("test"), [name])
            maps = grad_cam(trained.model.net, trained.model.normalize(batch.video), batch.label)[0].cpu().numpy()
            frames = batch.video[0].permute(1, 2, 3, 0).cpu().numpy()
            picked = np.linspace(0, len(frames) - 1, min(8, len(frames))).round().astype(int)
            seen.append(Evidence(maps[picked], frames[picked], f"{subject.label}: {said(subject.run, name)}"))
        true = subjects[0].run.evaluation["classes"][int(batch.label)]
        drawn[f"{true} (clip {name})"] = seen
    return heat_maps(drawn)


def said(run: Run, clip: str) -> str:
    """Say in words what a run's checkpoint makes of a test clip."""
    classes = run.evaluation["classes"]
    row = run.predictions.set_index("clip").loc[clip]
    shares = 100 * softmax(row[classes].to_numpy(float)[None])[0]
    answer, true = int(shares.argmax()), int(row["label"])
    words = f"says {classes[answer]}, {shares[answer]:.0f} %"
    return words if answer == true else f"{words} ({classes[true]} {shares[true]:.0f} %)"


def draw_instances(subjects: Sequence[Subject], options: Options) -> Figure:
    """Draw what the instances of median clips say, a column a run where there are several."""
    import torch

    classes = subjects[0].run.evaluation["classes"]
    bags = []
    for name in options.track(median_clips(options.first, options.shown), "instances"):
        for subject in subjects:
            trained, net = subject.trained, subject.trained.model.net
            batch = trained.batch(trained.data.dataset("test"), [name])
            with torch.inference_mode():
                video = trained.model.normalize(batch.video)
                logits = net.instance_logits(video)[0].cpu().numpy()
                weigh = wian_weights(subject)
                weights = weigh(video)[0].cpu().numpy() if weigh else None
            frames = batch.video[0].permute(1, 2, 3, 0).cpu().numpy()
            answer = classes[int(logits.mean(0).argmax())]
            title = f"{classes[int(batch.label)]} (clip {name})\n{subject.label} says {answer}"
            bags.append(Bag(frames, logits, title, weights))
    return instance_tables(bags, min(len(subjects), 3) if len(subjects) > 1 else 2, classes)


def wian_weights(subject: Subject) -> "Callable[[Tensor], Tensor] | None":
    """Return the function from normalised clips to WIAN's weight of each instance ``(B, N)``, where a run has them."""
    from dfer_zoo.nets import MICACLNet
    from dfer_zoo.nets.micacl import WIAN

    net = subject.trained.model.net
    if not isinstance(net, MICACLNet) or not isinstance(net.wian, WIAN) or net.wian.score is None:
        return None  # with weights of channels, those of an instance have mean 1 by construction
    return lambda video: net.wian.instance_weights(net.geiim(net.encoder(video))).squeeze(2)


def draw_interaction(subjects: Sequence[Subject], options: Options) -> Figure:
    """Draw GEIIM's graph and WIAN's weights, a row a run."""
    from dfer_zoo.nets.micacl import GEIIM

    models = {}
    for subject in subjects:
        names, ids = labelled_clips(subject.run, options.tsne_clips)
        geiim, weigh = subject.trained.model.net.geiim, wian_weights(subject)
        graph = isinstance(geiim, GEIIM)
        models[subject.label] = Interaction(
            geiim.adjacency().detach().cpu().numpy() if graph else None,
            geiim.balance.sigmoid().item() if graph else None,
            subject.trained.over(names, weigh, options.track, "weights") if weigh else None,
            ids,
        )
    return interactions(models, subjects[0].run.evaluation["classes"])


def draw_landscape(subjects: Sequence[Subject], options: Options) -> Figure:
    """Draw the loss around the weights of every run, on the same training clips."""
    surfaces, names = {}, None
    for subject in subjects:
        clips = training_clips(subject.trained, options.landscape_clips, options.seed)
        theirs = [name for batch in clips for name in batch.name]
        if names not in (None, theirs):
            raise InputError("the runs were trained on different clips; draw the landscapes one by one")
        names = theirs
        surfaces[subject.label] = loss_surface(
            subject.trained.model,
            clips,
            options.landscape_points,
            options.landscape_radius,
            options.seed,
            lambda points, _, subject=subject: options.track(points, f"landscape of {subject.run.name}"),
        )
    return landscapes(surfaces, options.landscape_radius, len(names))


def has_model(subject: Subject) -> None:
    """Refuse a run whose checkpoint or data is gone."""
    _ = subject.trained


def has_stage(subject: Subject) -> None:
    """Refuse a network without a known last stage."""
    last_stage(subject.trained.model.net)


def has_instances(subject: Subject) -> None:
    """Refuse a network that sees a clip as a whole."""
    net = subject.trained.model.net
    if getattr(getattr(net, "encoder", None), "instances", 1) == 1 or not hasattr(net, "instance_logits"):
        raise InputError("the model sees a clip as a whole, not as a bag of instances")


def has_interaction(subject: Subject) -> None:
    """Refuse a network without GEIIM and WIAN's weights of instances."""
    from dfer_zoo.nets.micacl import GEIIM

    if not isinstance(getattr(subject.trained.model.net, "geiim", None), GEIIM) and wian_weights(subject) is None:
        raise InputError("the model has neither GEIIM nor WIAN's weights of instances")


class Drawing(NamedTuple):
    """A figure that can be drawn."""

    draw: Callable[[Sequence[Subject], Options], Figure]
    check: Callable[[Subject], object] = lambda subject: None
    """Raises InputError, with the reason, for a run that it does not apply to."""
    same_clips: bool = False
    """Whether the runs in it must have been tested on the same clips."""


DRAWINGS = {
    "confusion": Drawing(lambda subjects, _: draw_confusions([subject.run for subject in subjects])),
    "recalls": Drawing(lambda subjects, _: draw_recalls([subject.run for subject in subjects])),
    "distribution": Drawing(draw_distribution),
    "curves": Drawing(draw_curves, lambda subject: read_history(subject.run.path)),
    "tsne": Drawing(draw_tsne, has_model, same_clips=True),
    "heatmaps": Drawing(draw_heatmaps, has_stage, same_clips=True),
    "instances": Drawing(draw_instances, has_instances, same_clips=True),
    "interaction": Drawing(draw_interaction, has_interaction),
    "landscape": Drawing(draw_landscape, has_model),
}
