"""Drawings of one shape with a sentence each, for configs/lrcn.

python examples/toy_captions.py data/toy_captions
dtrain configs/lrcn/solver.prototxt
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

END = "."  # word 0: begins and ends a sentence
COLOURS = {"red": (0.1, 0.1, 1.0), "green": (0.1, 1.0, 0.1), "blue": (1.0, 0.1, 0.1)}  # blue, green, red
SHAPES = ("square", "cross", "ring")
SIDES = ("left", "right")
WORDS = (END, "a", *COLOURS, *SHAPES, "on", "the", *SIDES)
STEPS = 9  # longest sentence and its end
SIZE = 24  # pixels on a side


def draw(colour: str, shape: str, side: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """An image (3, SIZE, SIZE) on a noisy ground."""
    image = rng.uniform(0, 0.3, (3, SIZE, SIZE)).astype(np.float32)
    top = rng.integers(1, SIZE - 10)
    left = rng.integers(0, SIZE // 2 - 8) + (SIZE // 2 if side == "right" else 0)
    stencil = np.ones((9, 9), bool)
    if shape == "ring":
        stencil[3:6, 3:6] = False
    elif shape == "cross":
        stencil[:3, :3] = stencil[:3, 6:] = stencil[6:, :3] = stencil[6:, 6:] = False
    window = image[:, top : top + 9, left : left + 9]
    window[:, stencil] = np.array(COLOURS[colour], np.float32)[:, None]
    return image


def row(rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
    """One image with cont, input and target over STEPS, as configs/lrcn/train_val.prototxt says."""
    colour, shape, side = rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(SIDES)
    sentence = [WORDS.index(word) for word in ("a", colour, shape, "on", "the", side)]
    spoken = len(sentence) + 1
    cont, before, after = np.zeros((3, STEPS), np.float32)
    cont[1:spoken] = 1
    before[1:spoken] = sentence
    after[:] = -1
    after[:spoken] = [*sentence, 0]
    return draw(str(colour), str(shape), str(side), rng), cont, before, after


def write(folder: Path, num_train: int = 1600, num_test: int = 400) -> None:
    """train.h5 and test.h5, and the lists of files that HDF5Data layers read."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", num_train), ("test", num_test)):
        columns = zip(*(row(rng) for _ in range(count)), strict=True)
        with h5py.File(folder / f"{part}.h5", "w") as file:
            for name, column in zip(("data", "cont", "input", "target"), columns, strict=True):
                file[name] = np.stack(column)
        (folder / f"{part}.txt").write_text(f"{folder / part}.h5\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
