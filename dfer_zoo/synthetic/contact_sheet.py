"""Draw the README's picture of the generated faces: the seven emotions at their height, ten people.

python -m dfer_zoo.synthetic.contact_sheet --out .github/synthetic.png
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.synthetic.appearance import draw_person
from dfer_zoo.synthetic.expressions import draw_habits, perform
from dfer_zoo.synthetic.render import SUPERSAMPLING, render_clip
from dfer_zoo.synthetic.rig import load_rig
from dfer_zoo.synthetic.scene import draw_occluders, draw_shot, draw_source

FRAMES = 12


def contact_sheet(people: int = 10, seed: int = 0, size: int = 128, tile: int = 88) -> np.ndarray:
    """Render one frame per emotion and person, where the label is strongest.

    Args:
        people: Number of people, one a column.
        seed: Seed.
        size: Width at which faces are rendered, in pixels.
        tile: Width at which they are shown.

    Returns:
        Picture, uint8 BGR: a row per emotion with its name, a column per person.
    """
    rig = load_rig()
    margin = 66
    sheet = np.full((tile * len(EMOTIONS), margin + tile * people, 3), 255, np.uint8)
    for row, emotion in enumerate(EMOTIONS):
        place = (2, tile * row + tile // 2 + 4)
        cv2.putText(sheet, emotion, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        for column in range(people):
            person = draw_person(rig, np.random.default_rng([seed, column]))
            rng = np.random.default_rng([seed, column, row])
            habits = draw_habits(np.random.default_rng([seed, column, len(EMOTIONS)]))
            act = perform(emotion, FRAMES, habits, rig.action_names, rng, strength=(0.8, 1.1), shared=0)
            source = draw_source(rng)
            shot = draw_shot(FRAMES, round(size * SUPERSAMPLING), source, person.skin, 7, rng)
            occluders = draw_occluders(FRAMES, size, person.skin, rng)
            picture = render_clip(person, act, shot, source, occluders, size, rng)[int(act.shown.argmax())]
            picture = cv2.resize(picture, (tile, tile), interpolation=cv2.INTER_AREA)
            left = margin + tile * column
            sheet[tile * row : tile * (row + 1), left : left + tile] = picture
    return sheet


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    coarse = contact_sheet(seed=arguments.seed) & 0xF8 | 0x04  # 32 levels a channel make half the file
    cv2.imwrite(str(arguments.out), coarse, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
