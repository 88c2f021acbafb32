#!/usr/bin/env python3
"""Makes the pictures and sounds in tests/fixtures/builtin, which the README and the tests use.

    samples.py tests/fixtures/builtin

Voices, scenes and writers that are never in training, as in the held-out sets.
"""
import sys
from pathlib import Path

import numpy as np

import data_pictures
import data_speech
import heldout

WORDS = {"words": "open seven two stop", "three": "three", "digits": "four one five",
         "commands": "save next cancel", "mixed": "play nine zero", "yes": "yes"}
# Shape, colour, count, place of a single one.
SCENES = {"circles": ("circle", "red", 4, None), "squares": ("square", "green", 2, None),
          "star": ("star", "yellow", 1, "at the top left")}
DIGIT = 3


def scene(rng, wanted):
    """The first drawn scene that is as wanted, of a combination in training or not."""
    while True:
        p = data_pictures.scene(rng, heldout.PICTURE_SIZE, held_out=wanted[:3] in data_pictures.HELD_OUT)
        if (p.shape, p.colour, p.count, p.place) == wanted:
            return p


def digit(rng):
    while True:
        p = data_pictures.digit(rng, heldout.PICTURE_SIZE, held_out=True)
        if p.digit == DIGIT:
            return p


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2024)
    for name, words in WORDS.items():
        clip = data_speech.speak(rng, words.split(), held_out=True)
        # A little silence around, as in a recording.
        heldout.write_wav(folder / f"{name}.wav", np.pad(clip.samples, 4000))
        print(f"{name}.wav: {words} ({clip.voice})")
    for name, wanted in SCENES.items():
        p = scene(rng, wanted)
        heldout.write_png(folder / f"{name}.png", p.pixels)
        print(f"{name}.png: {p.description()}")
    p = digit(rng)
    heldout.write_png(folder / "digit.png", p.pixels)
    print(f"digit.png: {p.description()}")


if __name__ == "__main__":
    main()
