"""Pictures: drawn scenes of equal shapes, and the handwritten digits that scikit-learn ships.

Scenes are drawn anew for every batch (half a millisecond each), so training never sees one twice;
a batch depends on its random generator only. Held out are some triples of shape, colour and count,
so few that every pair of the three is seen with most of the third: were whole pairs held out, say
four of anything red, a model would learn that red things are never four, and do worse than chance.
"""
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

SHAPES = ["circle", "square", "triangle", "star"]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "black", "white"]
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
MAX_COUNT = 5
PLACES = ["at the top left", "at the top", "at the top right", "at the left", "in the middle",
          "at the right", "at the bottom left", "at the bottom", "at the bottom right"]
HELD_OUT = {(shape, colour, 1 + count) for i, shape in enumerate(SHAPES) for j, colour in enumerate(COLOURS)
            for count in range(MAX_COUNT) if (3 * i + 5 * j + 7 * count) % 16 == 5}
# The set has no writers' names, but its order is that of the writers: the last are others.
TRAINING_DIGITS = 1440

# Hue in degrees, saturation and value, each a range.
HSV = {
    "red": ((-8, 8), (0.8, 1.0), (0.7, 1.0)), "orange": ((24, 33), (0.85, 1.0), (0.9, 1.0)),
    "yellow": ((51, 60), (0.75, 1.0), (0.9, 1.0)), "green": ((100, 140), (0.6, 1.0), (0.4, 0.85)),
    "blue": ((210, 235), (0.65, 1.0), (0.6, 1.0)), "purple": ((270, 292), (0.5, 0.9), (0.45, 0.8)),
    "black": ((0, 360), (0.0, 0.2), (0.0, 0.1)), "white": ((0, 360), (0.0, 0.04), (0.95, 1.0)),
}
# Outer radius relative to the nominal one, so that all shapes cover about the same area.
REACH = {"circle": 1.0, "square": 1.25, "triangle": 1.45, "star": 1.5}


@dataclass
class Picture:
    """Pixels [size, size, 3] of 8 bits, and what is on them."""

    pixels: np.ndarray
    shape: str | None = None
    colour: str | None = None
    count: int = 0
    place: str | None = None  # of a single object
    digit: int | None = None
    centres: tuple = ()  # of the objects, (x, y) in 0..1

    def description(self):
        """The answer to "Describe this image."."""
        if self.digit is not None:
            return f"The handwritten digit {NUMBERS[self.digit]}."
        things = f"{NUMBERS[self.count].capitalize()} {self.colour} {self.noun()}"
        return f"{things} {self.place}." if self.place else f"{things}."

    def noun(self):
        return self.shape if self.count == 1 else self.shape + "s"


def hsv_to_rgb(h, s, v):
    """One colour; h in degrees, the result in 0..1."""
    k = (np.array([5.0, 3.0, 1.0]) + h / 60) % 6
    return v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1)


def random_colour(rng, name):
    return hsv_to_rgb(*(rng.uniform(*interval) for interval in HSV[name]))


def background(rng, size, ink):
    """A plain or graded background, far enough from the ink."""
    while True:
        base = hsv_to_rgb(rng.uniform(0, 360), rng.uniform(0, 0.25), rng.uniform(0, 1))
        other = np.clip(base + rng.normal(0, 0.06, 3), 0, 1)
        if min(np.linalg.norm(base - ink), np.linalg.norm(other - ink)) > 0.45:
            break
    if rng.random() < 0.5:
        return np.broadcast_to(base, (size, size, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    ramp = 0.5 + np.float32(np.cos(angle)) * axis[None, :] + np.float32(np.sin(angle)) * axis[:, None]
    base = base.astype(np.float32)
    return base + ramp[:, :, None] * (other.astype(np.float32) - base)


def coverage(shape, x, y, radius, angle):
    """How much of each pixel a shape covers; x and y are pixels from its centre."""
    rho = np.hypot(x, y)
    reach = radius * REACH[shape]
    if shape == "circle":
        inside = reach - rho
    elif shape == "star":
        tip = np.pi / 5
        a = np.abs((np.arctan2(y, x) - angle + tip) % (2 * tip) - tip)
        inner = 0.45 * reach
        ex, ey = inner * np.cos(tip) - reach, inner * np.sin(tip)
        px, py = rho * np.cos(a) - reach, rho * np.sin(a)
        inside = (ex * py - ey * px) / np.hypot(ex, ey)
    else:
        half = np.pi / {"square": 4, "triangle": 3}[shape]
        a = (np.arctan2(y, x) - angle + half) % (2 * half) - half
        inside = reach * np.cos(half) - rho * np.cos(a)
    return np.clip(inside + 0.5, 0, 1)


def paint(canvas, shape, ink, cx, cy, radius, angle):
    """Lays one anti-aliased shape over the canvas; the centre and radius in pixels."""
    size, reach = len(canvas), radius * REACH[shape] + 1
    x0, x1 = max(int(cx - reach), 0), min(int(cx + reach) + 2, size)
    y0, y1 = max(int(cy - reach), 0), min(int(cy + reach) + 2, size)
    x = np.arange(x0, x1)[None, :] + 0.5 - cx
    y = np.arange(y0, y1)[:, None] + 0.5 - cy
    alpha = coverage(shape, x, y, radius, angle)[:, :, None].astype(np.float32)
    area = canvas[y0:y1, x0:x1]
    area += alpha * (ink.astype(np.float32) - area)


@lru_cache
def grain():
    """Noise to cut pieces from: drawing a picture's own would take longer than the picture."""
    return np.random.default_rng(0).standard_normal((512 * 512 * 3), np.float32)


def finish(rng, canvas):
    """Noise on half of the pictures, then 8 bits."""
    if rng.random() < 0.5:
        start = int(rng.integers(len(grain()) - canvas.size))
        piece = grain()[start:start + canvas.size].reshape(canvas.shape)
        canvas = canvas + piece * np.float32(rng.uniform(0, 0.03))
    return (np.clip(canvas, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def spread(rng, count, reach):
    """Centres of `count` objects in 0..1 that neither touch each other nor the edge, and the reach
    with which they fit."""
    while True:
        centres = []
        for _ in range(60):
            point = rng.uniform(reach + 0.01, 0.99 - reach, 2)
            if all(np.hypot(*(point - other)) > 2 * reach + 0.02 for other in centres):
                centres.append(point)
                if len(centres) == count:
                    return centres, reach
        reach *= 0.95


def single_centre(rng, radius):
    """A place by its name, and a centre well inside it."""
    place = int(rng.integers(9))
    cell = np.array([place % 3, place // 3])
    low, high = cell / 3 + 0.06, (cell + 1) / 3 - 0.06
    return PLACES[place], np.clip(rng.uniform(low, high), radius + 0.005, 0.995 - radius)


def scene(rng, size, held_out=False, large=False):
    """A scene; `large` is one big object, with which learning begins."""
    while True:
        colour = COLOURS[rng.integers(len(COLOURS))]
        count = 1 if large else 1 + int(rng.integers(MAX_COUNT))
        shape = SHAPES[rng.integers(len(SHAPES))]
        if ((shape, colour, count) in HELD_OUT) == held_out:
            break
    ink = random_colour(rng, colour)
    canvas = background(rng, size, ink).copy()
    place = None
    if count == 1:
        radius = rng.uniform(0.15, 0.22) if large else rng.uniform(0.08, 0.17)
        place, centre = single_centre(rng, min(radius * REACH[shape], 0.27))
        centres = [centre]
    else:
        radius = rng.uniform(0.075, 0.125 if count < 4 else 0.1)
        centres, reach = spread(rng, count, radius * REACH[shape])
        radius = reach / REACH[shape]
    for x, y in centres:
        # They stand upright, but not stiffly.
        angle = rng.uniform(-0.3, 0.3) + (-np.pi / 2 if shape == "star" else np.pi / 2)
        scale = size * radius * (1 if count == 1 else rng.uniform(0.9, 1.0))
        paint(canvas, shape, ink, x * size, y * size, scale, angle)
    return Picture(finish(rng, canvas), shape, colour, count, place, None, tuple(map(tuple, centres)))


@lru_cache
def digits():
    """(images [n, 8, 8] of 8 bits, labels [n]) of scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.clip(data.images * 255 / 16, 0, 255).astype(np.uint8), data.target


def as_another_hand(rng, picture):
    """Slanted, narrower or wider, with a thinner or thicker pen: there are few writers."""
    side = picture.width
    slant, width, height = rng.uniform(-0.2, 0.2), rng.uniform(0.85, 1.15), rng.uniform(0.9, 1.1)
    middle = side / 2
    table = (width, slant, middle * (1 - width - slant), 0, height, middle * (1 - height))
    picture = picture.transform((side, side), Image.AFFINE, table, Image.BILINEAR)
    pen = rng.uniform(0.6, 1.6)
    return picture.point([round(255 * (level / 255) ** pen) for level in range(256)])


def digit(rng, size, held_out=False):
    """A handwritten digit in ink on paper, a little turned, anywhere."""
    images, labels = digits()
    chosen = int(rng.integers(TRAINING_DIGITS, len(labels)) if held_out
                 else rng.integers(TRAINING_DIGITS))
    side = int(size * rng.uniform(0.5, 0.85))
    picture = Image.fromarray(images[chosen]).resize((side, side), Image.BICUBIC)
    picture = picture.rotate(rng.uniform(-10, 10), Image.BILINEAR)
    if not held_out:
        picture = as_another_hand(rng, picture)
    ink = random_colour(rng, COLOURS[rng.integers(len(COLOURS))])
    canvas = background(rng, size, ink).copy()
    x, y = rng.integers(0, size - side + 1, 2)
    area = canvas[y:y + side, x:x + side]
    area += np.asarray(picture, np.float32)[:, :, None] / 255 * (ink.astype(np.float32) - area)
    return Picture(finish(rng, canvas), digit=int(labels[chosen]),
                   centres=(((x + side / 2) / size, (y + side / 2) / size),))


def picture(rng, size, held_out=False, digit_share=0.25, large=0.0):
    """A scene or a digit; `large` is the share of scenes of one big object. Some are drawn larger
    and reduced, as the processor does with people's pictures."""
    drawn = int(rng.integers(size + 1, min(3 * size, 512))) if rng.random() < 0.15 else size
    if rng.random() < digit_share:
        made = digit(rng, drawn, held_out)
    else:
        made = scene(rng, drawn, held_out, large=not held_out and rng.random() < large)
    if drawn != size:
        made.pixels = np.asarray(Image.fromarray(made.pixels).resize((size, size), Image.BILINEAR))
    return made


def questions(rng, p):
    """A question about a picture and its answer."""
    if p.digit is not None:
        forms = ["Which digit is it?", "What number is this?", "Which digit do you see?",
                 "What digit is written here?"]
        return forms[rng.integers(len(forms))], f"{NUMBERS[p.digit].capitalize()}."
    forms = {
        "colour": (["What colour is it?", "Which colour do you see?", "What is the colour?"]
                   if p.count == 1 else
                   ["What colour are they?", "Which colour do you see?", "What is the colour?"],
                   p.colour.capitalize() + "."),
        "count": (["How many are there?", "How many shapes do you see?", "How many objects are in the picture?",
                   f"How many {p.shape}s are there?"], NUMBERS[p.count].capitalize() + "."),
        "shape": (["What shape is it?", "Which shape do you see?"] if p.count == 1 else
                  ["What shapes are they?", "Which shapes do you see?"],
                  ("A " + p.shape if p.count == 1 else p.noun().capitalize()) + "."),
    }
    if p.place:
        forms["place"] = (["Where is it?", f"Where is the {p.shape}?"],
                          p.place[0].upper() + p.place[1:] + ".")
    wordings, answer = forms[list(forms)[rng.integers(len(forms))]]
    return wordings[rng.integers(len(wordings))], answer
