"""Training of the text model: alone, with the ears, with the eyes, and with everything.

Every other batch runs the slice inside (see nested.py). Batches come in two halves, which two
processes compute side by side, or one after the other: the sum of the gradients is the same.
"""
import numpy as np
import torch
import torch.nn.functional as F

import config
import data_speech
import data_text
import examples
import fast
import loop
import nested
import tokenizer as tokens

HALVES = 2
CAP = config.TEXT["final_logit_softcapping"]


def logits_of(model, batch):
    """(logits, targets) where there is something to be said."""
    model.model.config.audio_soft_tokens_per_image = batch.audio_tokens
    output = model.model(
        input_ids=batch.ids, pixel_values=batch.pixels, input_features=batch.features,
        input_features_mask=None if batch.padding is None else ~batch.padding, use_cache=False)
    targets = batch.labels[:, 1:]
    said = targets != examples.IGNORE
    logits = model.lm_head(output.last_hidden_state[:, :-1][said])
    return CAP * torch.tanh(logits / CAP), targets, said


def loss_of(model, batch, sliced):
    with nested.slice_of(model, sliced):
        logits, targets, said = logits_of(model, batch)
    return F.cross_entropy(logits, targets[said])


@torch.no_grad()
def share_right(model, tokenizer, conversations, sliced=False):
    """Share of conversations whose every answer is what greedy decoding says, in percent."""
    model.eval()
    right = []
    with nested.slice_of(model, sliced):
        for start in range(0, len(conversations), 48):
            batch = examples.collate(tokenizer, conversations[start:start + 48])
            logits, targets, said = logits_of(model, batch)
            wrong = torch.zeros(targets.shape, dtype=torch.bool)
            wrong[said] = logits.argmax(-1) != targets[said]
            right += (~wrong.any(1)).tolist()
    model.train()
    return 100 * float(np.mean(right))


def frozen(module, is_frozen=True):
    module.requires_grad_(not is_frozen)


def held_out_text(kind, count, seed=98):
    rng = np.random.default_rng([seed, len(kind)])
    return [[examples.Turn(*data_text.__dict__[kind](rng, True))] for _ in range(count)]


def held_out_pictures(unseen, count, seed=97):
    rng = np.random.default_rng([seed, unseen])
    return [[examples.seen(rng, 1.0, unseen)[0]] for _ in range(count)]


def held_out_sounds(clips):
    """Clips with the request to transcribe them. Whole phrases are counted: one forward pass tells
    what greedy decoding would say, as long as it is right."""
    prompt = "Transcribe this audio. Write only the text."
    return [[examples.Turn(prompt, " ".join(clip.words), [clip.samples])] for clip in clips]


def free_questions():
    return [[examples.Turn(question, answer)] for question, answer in data_text.free()]


def text_figures(model, tokenizer):
    commands = held_out_text("command", 192)
    return {"command": share_right(model, tokenizer, commands),
            "half": share_right(model, tokenizer, commands, True),
            "free": share_right(model, tokenizer, free_questions()),
            "sums": share_right(model, tokenizer, held_out_text("arithmetic", 96)),
            "repeat": share_right(model, tokenizer, held_out_text("repeat", 96))}


class Trainer:
    """What the stages share: the model, its text and sounds, held-out clips."""

    def __init__(self, run, *stages):
        fast.use()
        self.run = run
        self.model = run.model(*stages)
        self.tokenizer = tokens.read(run.folder / "tokenizer.json")
        self.text, self.audio = self.model.model.language_model, self.model.model.audio_tower
        self.vision = self.model.model.vision_tower
        self.embedders = torch.nn.ModuleList([self.model.model.embed_audio, self.model.model.embed_vision])

    def hear(self):
        self.speech = data_speech.Speech(self.run.folder / "speech")
        self.held_out = data_speech.held_out_clips(self.run.folder / "heldout", 96)

    def texts(self, rng, count=16):
        pool = sorted((examples.text(rng) for _ in range(4 * count)), key=lambda c: len(c[0].text) + 20 * len(c))
        start = int(rng.integers(len(pool) - count + 1))
        return examples.collate(self.tokenizer, pool[start:start + count])

    def sounds(self, rng, count, most, audio_tokens, joined=0.0, least=1):
        clips = self.speech.batch(rng, count, most, joined, least)
        longest = int(audio_tokens * 2560)
        clips = [clip for clip in clips if len(clip.samples) < longest - 0.7 * data_speech.RATE] or clips[:1]
        if rng.random() < 0.4:
            clips[-1] = data_speech.quiet_clip(rng)
        turns = [[examples.heard(rng, clip)] for clip in clips]
        for conversation in turns:
            conversation[0].media[0] = conversation[0].media[0][:longest]
        return examples.collate(self.tokenizer, turns, audio_tokens,
                                lambda features, padding: data_speech.spoil(rng, features, padding))

    def pictures(self, rng, count):
        return examples.collate(self.tokenizer, [[examples.seen(rng)[0]] for _ in range(count)])

    def boths(self, rng, count):
        return examples.collate(self.tokenizer, [examples.both(rng, self.speech) for _ in range(count)])

    def train(self, stage, batch_of, figures, every, kept="model."):
        """`batch_of(rng, step)` makes half a batch; `kept` begins the names of what is kept."""
        for step in stage:
            sliced = bool(np.random.default_rng([self.run.seed, 5, step]).random() < 0.5)
            for half in stage.shares(HALVES):
                rng = np.random.default_rng([self.run.seed, 6, len(stage.stage), step, half])
                stage.backward(loss_of(self.model, batch_of(rng, step), sliced), HALVES)
            stage.update()
            if stage.due(every):
                stage.report(figures)
        self.run.finish(stage.stage, {name: value for name, value in self.model.state_dict().items()
                                      if name.startswith(kept)})


def optimizer_of(*groups):
    return torch.optim.AdamW([group for part in groups for group in part], betas=(0.9, 0.98))


def train_text(run, steps=1000, rate=1e-3):
    """The text model alone: questions, small talk, sums, repeating."""
    t = Trainer(run)
    optimizer = optimizer_of(loop.parameter_groups(t.text, rate, 0.02))
    stage = run.steps("text", steps).start({"text": t.text}, optimizer)
    t.train(stage, lambda rng, step: t.texts(rng), lambda: text_figures(t.model, t.tokenizer), 200,
            "model.language_model.")


def train_listening(run, steps=800, rate=1e-3):
    """The ears into the text model: single words with few placeholders, then more of both."""
    t = Trainer(run, "text", "ears")
    t.hear()
    optimizer = optimizer_of(loop.parameter_groups(t.text, rate, 0.02),
                             loop.parameter_groups(t.embedders[0], rate, 0.0),
                             loop.parameter_groups(t.audio, rate, 0.02, 0.2))
    for group in optimizer.param_groups[-2:]:
        group["opens"] = 0.35
    modules = {"text": t.text, "embed_audio": t.embedders[0], "audio": t.audio}
    stage = run.steps("listening", steps).start(modules, optimizer)

    def batch_of(rng, step):
        frozen(t.audio, stage.share < 0.35)
        if step % 5 == 4:
            return t.texts(rng)
        if stage.share < 0.2:
            return t.sounds(rng, 24, 1, 12)
        if stage.share < 0.4:
            return t.sounds(rng, 12, 3, 28)
        return t.sounds(rng, 8, 20, config.AUDIO_TOKENS, 0.3 * (stage.share > 0.5))

    def figures():
        out = {name: share_right(t.model, t.tokenizer, held_out_sounds(clips))
               for name, clips in t.held_out.items()}
        out["command"] = share_right(t.model, t.tokenizer, held_out_text("command", 96))
        return out

    t.train(stage, batch_of, figures, 100)


def train_seeing(run, steps=260, rate=7e-4):
    """The eyes into the text model, with text and sound so that they are not forgotten."""
    t = Trainer(run, "listening", "eyes")
    t.hear()
    t.vision.to(memory_format=torch.channels_last)
    frozen(t.audio)
    optimizer = optimizer_of(loop.parameter_groups(t.text, rate, 0.02),
                             loop.parameter_groups(t.embedders, rate, 0.0),
                             loop.parameter_groups(t.vision, rate, 0.02, 0.2))
    for group in optimizer.param_groups[-2:]:
        group["opens"] = 0.3
    modules = {"text": t.text, "embedders": t.embedders, "vision": t.vision}
    stage = run.steps("seeing", steps).start(modules, optimizer)

    def batch_of(rng, step):
        frozen(t.vision, stage.share < 0.3)
        if step % 6 == 4:
            return t.texts(rng)
        if step % 6 == 5:
            return t.sounds(rng, 8, 20, config.AUDIO_TOKENS, 0.3)
        return t.pictures(rng, 16)

    def figures():
        out = {"seen": share_right(t.model, t.tokenizer, held_out_pictures(False, 144)),
               "unseen": share_right(t.model, t.tokenizer, held_out_pictures(True, 144)),
               "command": share_right(t.model, t.tokenizer, held_out_text("command", 96))}
        out["espeak"] = share_right(t.model, t.tokenizer, held_out_sounds(t.held_out["espeak"]))
        return out

    t.train(stage, batch_of, figures, 100)


def train_everything(run, steps=1100, rate=6e-4):
    """All kinds of turns mixed, all parts trained, until the rate has run out."""
    t = Trainer(run, "seeing")
    t.hear()
    t.vision.to(memory_format=torch.channels_last)
    optimizer = optimizer_of(loop.parameter_groups(t.text, rate, 0.02),
                             loop.parameter_groups(t.embedders, rate, 0.0),
                             loop.parameter_groups(t.vision, rate, 0.02, 0.3),
                             loop.parameter_groups(t.audio, rate, 0.02, 0.3))
    modules = {"text": t.text, "embedders": t.embedders, "vision": t.vision, "audio": t.audio}
    stage = run.steps("everything", steps).start(modules, optimizer)
    kinds = ["text"] * 4 + ["sound"] * 11 + ["picture"] * 3 + ["both"] * 2

    def batch_of(rng, step):
        kind = kinds[int(np.random.default_rng([run.seed, 8, step]).integers(len(kinds)))]
        if kind == "text":
            return t.texts(rng)
        if kind == "sound":
            # In long phrases it is the order that is hard; single words are known by now.
            least = 3 if rng.random() < 0.75 else 1
            return t.sounds(rng, 8, 20, config.AUDIO_TOKENS, 0.3, least)
        return t.pictures(rng, 16) if kind == "picture" else t.boths(rng, 6)

    def figures():
        sounds = {name: held_out_sounds(clips) for name, clips in t.held_out.items()}
        out = {name: share_right(t.model, t.tokenizer, part) for name, part in sounds.items()}
        out["half espeak"] = share_right(t.model, t.tokenizer, sounds["espeak"], True)
        pictures = [held_out_pictures(unseen, 144) for unseen in (False, True)]
        out["seen"], out["unseen"] = (share_right(t.model, t.tokenizer, part) for part in pictures)
        out["half seen"] = share_right(t.model, t.tokenizer, pictures[0], True)
        rng = np.random.default_rng(96)
        out["both"] = share_right(t.model, t.tokenizer, [examples.both(rng, t.speech) for _ in range(48)])
        return {**out, **text_figures(t.model, t.tokenizer)}

    t.train(stage, batch_of, figures, 550)
