"""Pre-training of the sound tower with a word classifier (CTC) that is thrown away.

CTC alone never leaves the plateau where every frame is blank. So learning begins with single
words whose end is known: the word is the target of the frames around it. The CTC that follows is
that of all four phases of the frames that the decoder will see one in four of, so that every
frame learns to be a good soft token.
"""
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import config
import data_speech as data
import fast
import loop

BLANK, IGNORE = 0, -100
CLASSES = 1 + len(data.WORDS)
FRAME = 640  # samples of a frame before the reduction
REDUCTION = config.AUDIO["conf_reduction_factor"]


def aligned_loss(logits, ends, words):
    """Single words: the word on the frames around its end, blank after and long before, the
    frames during the word left out."""
    target = torch.full(logits.shape[:2], BLANK)
    for row, (end, clip_words) in enumerate(zip(ends, words)):
        frame = end // FRAME
        target[row, max(frame - 20, 0):frame + 4] = IGNORE
        target[row, max(frame - 2, 0):frame + 4] = 1 + data.WORDS.index(clip_words[0])
    weight = torch.ones(CLASSES)
    weight[BLANK] = 0.3
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight, ignore_index=IGNORE)


def ctc_loss(logits, frames, words):
    """Mean over the four phases of the reduced frames."""
    targets = torch.tensor([1 + data.WORDS.index(word) for clip in words for word in clip])
    lengths = torch.tensor([len(clip) for clip in words])
    loss = 0
    for phase in range(REDUCTION):
        part = logits[:, phase::REDUCTION].log_softmax(-1).transpose(0, 1)
        counts = ((frames - phase + REDUCTION - 1) // REDUCTION).clamp(1, part.shape[0])
        loss = loss + F.ctc_loss(part, targets, counts, lengths, BLANK, "sum", zero_infinity=True)
    return loss / (REDUCTION * lengths.sum().clamp(min=1))


def encode(tower, features, padding):
    """All frames, unreduced, and how many of each clip are sound."""
    output = tower(features, padding)
    return output.last_hidden_state, (~output.audio_mel_mask).sum(1)


@torch.no_grad()
def word_error_rate(tower, head, clips):
    """Of the reduced frames' best path."""
    tower.eval()
    errors = total = 0
    for start in range(0, len(clips), 32):
        batch = clips[start:start + 32]
        hidden, frames = encode(tower, *data.log_mel([clip.samples for clip in batch]))
        best = head(hidden)[:, ::REDUCTION].argmax(-1)
        for row, count, clip in zip(best, frames, batch):
            path = row[:(int(count) + REDUCTION - 1) // REDUCTION].tolist()
            found = [data.WORDS[c - 1] for i, c in enumerate(path)
                     if c != BLANK and (i == 0 or path[i - 1] != c)]
            errors += data.word_errors(clip.words, found)
            total += len(clip.words)
    tower.train()
    return 100 * errors / total


def train(run, steps=2600, rate=1e-3, batch=24):
    """Trains the sound tower; keeps it under the model's names."""
    fast.use()
    model = run.model()
    tower = model.model.audio_tower
    tower.config.conf_reduction_factor = 1
    head = nn.Linear(config.AUDIO["hidden_size"], CLASSES)
    speech = data.Speech(run.folder / "speech")
    held_out = data.held_out_clips(run.folder / "heldout", 200)
    both = nn.ModuleList([tower, head])
    optimizer = torch.optim.AdamW(loop.parameter_groups(both, rate, 0.05), betas=(0.9, 0.98))
    stage = run.steps("ears", steps).start({"both": both}, optimizer, warm_up=0.03)
    for step in stage:
        rng = np.random.default_rng([run.seed, 4, step])
        aligned = stage.share < 0.1
        most = 1 if aligned else 2 if stage.share < 0.16 else 4 if stage.share < 0.25 else 20
        joined = 0.3 * (stage.share > 0.3)
        clips = speech.batch(rng, batch if most < 20 else batch - 8, most, joined)
        if not aligned and step % 8 == 0:
            clips[-1] = data.quiet_clip(rng)
        waves, ends = zip(*(data.disturb(rng, clip, min(stage.share / 0.05, 1)) for clip in clips))
        features, padding = data.log_mel(waves)
        if stage.share > 0.04:
            features = data.spoil(rng, features, padding)
        hidden, frames = encode(tower, features, padding)
        words = [clip.words for clip in clips]
        logits = head(hidden)
        stage.backward(aligned_loss(logits, ends, words) if aligned
                       else ctc_loss(logits, frames, words))
        stage.update()
        if stage.due(250):
            stage.report(lambda: {name: word_error_rate(tower, head, part)
                                  for name, part in held_out.items()})
    run.finish("ears", {f"model.audio_tower.{name}": value
                        for name, value in tower.state_dict().items()})
