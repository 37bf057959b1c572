"""What the file names of freely available sets say: label, speaker, and a fold that no speaker leaves.

===========  ==================================  =========================================================  ===========
Set          Address                             Licence                                                    Videos
===========  ==================================  =========================================================  ===========
CREMA-D      github.com/CheyneyComputerScience/  Open Database License 1.0 (contents: Database Contents     7442 of 91
             CREMA-D (VideoFlash)                License 1.0)                                               actors
RAVDESS      doi.org/10.5281/zenodo.1188976      CC BY-NC-SA 4.0; commercial licences can be bought         24 actors
===========  ==================================  =========================================================  ===========

Their labels are what actors were asked to show. CREMA-D has no Surprise. RAVDESS' calm has no counterpart in the seven
emotions.
"""

import re
from typing import NamedTuple

FOLDS = 5


class Named(NamedTuple):
    """What a file's name says."""

    label: str
    """One of `dfer_zoo.emotions.EMOTIONS`; empty where there is no counterpart."""
    person: str
    fold: int
    """1 to 5; the same for all clips of a person, whatever other files there are."""
    recording: str
    """The same for two files that show the same pictures."""
    why_not: str
    """Why the file is no clip to train on; empty if it is one."""


CREMA_D = {"ANG": "Angry", "DIS": "Disgust", "FEA": "Fear", "HAP": "Happy", "NEU": "Neutral", "SAD": "Sad"}

RAVDESS = {
    "01": "Neutral",
    "02": "",
    "03": "Happy",
    "04": "Sad",
    "05": "Angry",
    "06": "Fear",
    "07": "Disgust",
    "08": "Surprise",
}


def crema_d(stem: str) -> Named | None:
    """Read a CREMA-D name, ``<actor>_<sentence>_<emotion>_<level>``; None if it is none.

    >>> crema_d("1004_IEO_FEA_HI")
    Named(label='Fear', person='1004', fold=4, recording='1004_IEO_FEA_HI', why_not='')
    """
    found = re.fullmatch(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})", stem)
    if not found or found[3] not in CREMA_D:
        return None
    return Named(CREMA_D[found[3]], found[1], (int(found[1]) - 1001) % FOLDS + 1, stem, "")


def ravdess(stem: str) -> Named | None:
    """Read a RAVDESS name: modality, channel, emotion, intensity, statement, repetition, actor; None if it is none.

    Neighbouring actors are a man (odd) and a woman (even): pairs share a fold, so that each fold has as many of both.

    >>> ravdess("02-01-06-01-02-01-12")
    Named(label='Fear', person='12', fold=1, recording='01-06-01-02-01-12', why_not='')
    >>> ravdess("01-01-02-01-02-01-03").why_not
    'calm has no counterpart among the seven emotions'
    """
    found = re.fullmatch(r"(0[1-3])-(0[12]-(0[1-8])-0[12]-0[12]-0[12]-(\d{2}))", stem)
    if not found or not 1 <= int(found[4]) <= 24:
        return None
    label = RAVDESS[found[3]]
    why_not = "" if label else "calm has no counterpart among the seven emotions"
    if found[1] == "03":
        why_not = "sound without pictures"
    return Named(label, found[4], (int(found[4]) - 1) // 2 % FOLDS + 1, found[2], why_not)


READERS = {"crema-d": crema_d, "ravdess": ravdess}
"""The readers by the name of their set."""
