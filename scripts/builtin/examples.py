"""Conversations as the program and the reference's processor lay them out, and batches of them.

A conversation is a list of turns; a turn is what the user sends (pictures and sounds first, then
text) and the answer. Loss is on the answers only.
"""
from dataclasses import dataclass, field

import numpy as np
import torch

import config
import data_pictures
import data_speech
import data_text

DESCRIBE = "Describe this image."
# The program's presets that ask for much the same.
PRESETS = [DESCRIBE] * 6 + ["Write a one-sentence caption for this image.",
                            "Write alt text for this image in one sentence."]
IGNORE = -100


def transcribe_prompt(rng):
    """The program's request, with what --language and --prompt add to it."""
    text = "Transcribe this audio in English." if rng.random() < 0.2 else "Transcribe this audio."
    text += " Write only the text."
    if rng.random() < 0.2:
        hints = [data_text.pick(rng, data_text.WORDS + data_speech.WORDS) for _ in range(int(rng.integers(1, 5)))]
        text += f" These names and words may occur: {', '.join(hints)}"
    return text


@dataclass
class Turn:
    """Media are numpy arrays: pixels [size, size, 3] of 8 bits, or samples."""

    text: str
    answer: str
    media: list = field(default_factory=list)

    def is_sound(self, index):
        return self.media[index].ndim == 1


def render(turn, audio_tokens):
    """The user's part of a turn with its placeholders, as the processor expands them."""
    content = ""
    for index in range(len(turn.media)):
        if turn.is_sound(index):
            content += f"\n\n<start_of_audio>{'<audio_soft_token>' * audio_tokens}<end_of_audio>\n\n"
        else:
            content += f"\n\n<start_of_image>{'<image_soft_token>' * config.IMAGE_TOKENS}<end_of_image>\n\n"
    return f"<start_of_turn>user\n{content}{turn.text}<end_of_turn>\n<start_of_turn>model\n"


def encode(tokenizer, conversation, audio_tokens):
    """(ids, labels) of a conversation."""
    ids, labels = [config.BOS], [IGNORE]
    for turn in conversation:
        asked = tokenizer.encode(render(turn, audio_tokens), add_special_tokens=False).ids
        said = tokenizer.encode(turn.answer + "<end_of_turn>", add_special_tokens=False).ids
        newline = tokenizer.encode("\n", add_special_tokens=False).ids
        ids += asked + said + newline
        labels += [IGNORE] * len(asked) + said + [IGNORE] * len(newline)
    return ids, labels


@dataclass
class Batch:
    """Tensors of some conversations; media in the order of their placeholders."""

    ids: torch.Tensor  # [batch, length], padded on the right
    labels: torch.Tensor
    pixels: torch.Tensor | None
    features: torch.Tensor | None
    padding: torch.Tensor | None  # True where features are padding
    audio_tokens: int


def collate(tokenizer, conversations, audio_tokens=config.AUDIO_TOKENS, spoil=None):
    """`spoil(features, padding)` disturbs the sound's features."""
    rows = [encode(tokenizer, conversation, audio_tokens) for conversation in conversations]
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), config.PAD)
    labels = torch.full((len(rows), length), IGNORE)
    for i, (row, target) in enumerate(rows):
        ids[i, :len(row)], labels[i, :len(row)] = torch.tensor(row), torch.tensor(target)
    media = [(turn, index) for conversation in conversations for turn in conversation
             for index in range(len(turn.media))]
    pictures = [turn.media[i] for turn, i in media if not turn.is_sound(i)]
    sounds = [turn.media[i] for turn, i in media if turn.is_sound(i)]
    pixels = features = padding = None
    if pictures:
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().mul_(1 / 255)
    if sounds:
        features, padding = data_speech.log_mel(sounds)
        if spoil:
            features = spoil(features, padding)
    return Batch(ids, labels, pixels, features, padding, audio_tokens)


# ---- what there is to train on


def text(rng):
    """One exchange, or at times a conversation of some."""
    turns = 1 if rng.random() < 0.95 else int(rng.integers(2, 4))
    return [Turn(*data_text.exchange(rng)) for _ in range(turns)]


def heard(rng, clip, strength=1.0):
    """A clip, disturbed, with the request to transcribe it."""
    samples, _ = data_speech.disturb(rng, clip, strength)
    return Turn(transcribe_prompt(rng), " ".join(clip.words), [samples])


def seen(rng, describe=0.7, held_out=False):
    """A picture with the request to describe it, or a question about it."""
    picture = data_pictures.picture(rng, config.IMAGE_SIZE, held_out)
    if rng.random() < describe:
        prompt = DESCRIBE if held_out else data_text.pick(rng, PRESETS)
        return Turn(prompt, picture.description(), [picture.pixels]), picture
    question, answer = data_pictures.questions(rng, picture)
    return Turn(question, answer, [picture.pixels]), picture


BOTH = ["What do you see and hear?", "What do you see, and what do you hear?",
        "Tell me what you see and what you hear.", "Describe the picture and the sound."]
SAME = ["Is the number in the picture the number that was said?",
        "Do the picture and the sound have the same number?",
        "Was the number in the picture said?"]


def see_and_hear(picture, words):
    """The answer to what is on a picture and in a sound."""
    return f"I see: {picture.description()} I hear: {' '.join(words)}."


def both(rng, speech, held_out=False):
    """A picture and a sound, in one turn or one after the other, and a question about both."""
    picture = data_pictures.picture(rng, config.IMAGE_SIZE, held_out)
    number = data_pictures.NUMBERS[picture.count if picture.digit is None else picture.digit]
    if rng.random() < 0.5:
        clip, question = speech.batch(rng, 1, 6)[0], data_text.pick(rng, BOTH)
        answer = see_and_hear(picture, clip.words)
    else:
        clip = speech.digit(rng, number if rng.random() < 0.5 else None)
        question = data_text.pick(rng, SAME)
        answer = "Yes." if clip.words == [number] else "No."
    sound, _ = data_speech.disturb(rng, clip)
    if rng.random() < 0.5:
        return [Turn(question, answer, [picture.pixels, sound])]
    return [Turn(DESCRIBE, picture.description(), [picture.pixels]),
            Turn(transcribe_prompt(rng), " ".join(clip.words), [sound]), Turn(question, answer)]
