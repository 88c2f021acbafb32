"""Pre-training of the picture tower with heads that are thrown away.

The heads read the soft tokens as the text model will. What makes shapes learnable in minutes is
telling each soft token what lies in its own part of the picture (as the ears are first told where
a word ends): whether an object's centre does, and if so its shape and colour. The pooled heads
for the whole picture then come almost by themselves.
"""
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import config
import data_pictures as data
import fast
import loop

SHAPES, COLOURS, PLACES = len(data.SHAPES), len(data.COLOURS), len(data.PLACES)
GRID = config.IMAGE_GRID
# Parts of the pooled head's outputs.
PARTS = {"kind": 2, "shape": SHAPES, "colour": COLOURS, "count": data.MAX_COUNT, "digit": 10}
WEIGHTS = {"kind": 0.5, "shape": 2.0, "colour": 1.0, "count": 1.5, "digit": 1.5, "place": 0.5}
IGNORE = -100


class Heads(nn.Module):
    """Linear readers of soft tokens [batch, tokens, width]."""

    def __init__(self, width=config.VISION_WIDTH):
        super().__init__()
        # Of each token: its number of centres (0, 1, 2 or more), shape, colour.
        self.local = nn.Linear(width, 3 + SHAPES + COLOURS)
        self.pooled = nn.Linear(2 * width, sum(PARTS.values()))
        self.place = nn.Linear(width * config.IMAGE_TOKENS, PLACES)
        for layer in (self.local, self.pooled, self.place):
            nn.init.normal_(layer.weight, 0, 0.5 * layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens):
        pooled = self.pooled(torch.cat([tokens.mean(1), tokens.amax(1)], -1))
        outputs = dict(zip(PARTS, pooled.split(list(PARTS.values()), -1)))
        outputs["place"] = self.place(tokens.flatten(1))
        return outputs, self.local(tokens).split([3, SHAPES, COLOURS], -1)


def labels(pictures):
    """Class ids of each part, IGNORE where it has none, and those of the tokens."""
    names = [*PARTS, "place", "cells", "cell_shape", "cell_colour"]
    out = {name: [] for name in names}
    for p in pictures:
        written = p.digit is not None
        out["kind"].append(int(written))
        out["shape"].append(IGNORE if written else data.SHAPES.index(p.shape))
        out["colour"].append(IGNORE if written else data.COLOURS.index(p.colour))
        out["count"].append(IGNORE if written else p.count - 1)
        out["digit"].append(p.digit if written else IGNORE)
        out["place"].append(data.PLACES.index(p.place) if p.place else IGNORE)
        cells = np.zeros((GRID, GRID), np.int64)
        if not written:
            for x, y in p.centres:
                cells[int(y * GRID), int(x * GRID)] += 1
        held = cells.ravel() > 0
        out["cells"].append(np.full(GRID**2, IGNORE) if written else cells.ravel().clip(max=2))
        out["cell_shape"].append(np.where(held, out["shape"][-1], IGNORE))
        out["cell_colour"].append(np.where(held, out["colour"][-1], IGNORE))
    return {name: torch.from_numpy(np.array(values)) for name, values in out.items()}


def pixels(pictures):
    """[batch, 3, size, size] in 0..1, channels last in memory."""
    x = torch.from_numpy(np.stack([p.pixels for p in pictures]))
    return x.permute(0, 3, 1, 2).float().mul_(1 / 255)


def soft_tokens(tower, x):
    """[batch, tokens, width] of pixels, as the reference's get_image_features lays them out."""
    features = tower.forward_features(x) if hasattr(tower, "forward_features") else tower(x)
    return features.flatten(2).transpose(1, 2)


def cross_entropy(logits, target):
    """Mean over the targets that there are; 0 if there are none."""
    if (target == IGNORE).all():
        return logits.sum() * 0
    return F.cross_entropy(logits.flatten(0, -2), target.flatten(), ignore_index=IGNORE)


def loss_of(outputs, local, target, local_weight):
    loss = sum(WEIGHTS[name] * cross_entropy(logits, target[name])
               for name, logits in outputs.items())
    cells = (cross_entropy(local[0], target["cells"]) + 2 * cross_entropy(local[1], target["cell_shape"])
             + cross_entropy(local[2], target["cell_colour"]))
    return loss + local_weight * cells


@torch.no_grad()
def measure(tower, heads, held_out, count=384, seed=99):
    """Shares right on new pictures: parts of those that have them, and all parts together."""
    tower.eval()
    rng = np.random.default_rng(seed)
    right = {name: [] for name in [*PARTS, "place", "exact", "exact_scene"]}
    for _ in range(count // 64):
        batch = [data.picture(rng, config.IMAGE_SIZE, held_out) for _ in range(64)]
        target = labels(batch)
        outputs, _ = heads(soft_tokens(tower, pixels(batch)))
        exact = np.ones(len(batch), bool)
        for name, logits in outputs.items():
            known = (target[name] != IGNORE).numpy()
            hit = (logits.argmax(-1) == target[name]).numpy()
            right[name] += hit[known].tolist()
            exact &= hit | ~known
        right["exact"] += exact.tolist()
        right["exact_scene"] += exact[target["kind"].numpy() == 0].tolist()
    tower.train()
    return {name: 100 * float(np.mean(hits)) for name, hits in right.items()}


def train(run, steps=3000, rate=1.5e-3, batch=32):
    """Trains the picture tower; keeps it under the model's names."""
    fast.use()
    model = run.model()
    tower = model.model.vision_tower.timm_model.to(memory_format=torch.channels_last)
    heads = Heads()
    # The head for places reads thousands of values, so it needs a small rate.
    optimizer = torch.optim.AdamW(
        loop.parameter_groups(tower, rate, 0.02) + loop.parameter_groups(heads, rate * 0.2, 0.0),
        betas=(0.9, 0.98))
    stage = run.steps("eyes", steps).start({"tower": tower, "heads": heads}, optimizer)
    for step in stage:
        rng = np.random.default_rng([run.seed, 2, step])
        # One large object first, then everything.
        large, written = max(0.0, 1 - stage.share / 0.15), 0.25 * (stage.share > 0.04)
        pictures = [data.picture(rng, config.IMAGE_SIZE, digit_share=written, large=large)
                    for _ in range(batch)]
        outputs, local = heads(soft_tokens(tower, pixels(pictures)))
        stage.backward(loss_of(outputs, local, labels(pictures), 1.0 if stage.share < 0.5 else 0.5))
        stage.update()
        if stage.due(250):
            stage.report(lambda: {"seen": measure(tower, heads, False),
                                  "unseen": measure(tower, heads, True)})
    prefix = "model.vision_tower."
    run.finish("eyes", {name: value for name, value in model.state_dict().items()
                        if name.startswith(prefix)})
