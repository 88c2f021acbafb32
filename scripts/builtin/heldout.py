"""Held-out sets as plain files: WAV, PNG, and lines of JSON with a prompt and the right answer.

The reference implementation and the program are measured on the same files. Voices, pictures'
combinations of colour and count, writers' digits, wordings and frames here are never trained on.
"""
import json
import wave

import numpy as np
from PIL import Image

import data_pictures
import data_speech
import data_text
import examples

PICTURE_SIZE = 256  # larger than the model's: the program has to resize them
TRANSCRIBE = "Transcribe this audio. Write only the text."
COUNTS = {"speech-espeak": 300, "speech-flite": 150, "quiet": 30, "pictures": 400, "commands": 250,
          "arithmetic": 80, "repeat": 80, "both": 60}


def write_wav(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, data_speech.RATE, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def spoken(rng, flite):
    """A phrase in a held-out voice: with a little noise, and at times with another behind a pause."""
    clip = data_speech.speak(rng, data_speech.phrase(rng), held_out=True, flite=flite)
    samples = np.pad(clip.samples, data_speech.RATE // 5) * np.float32(rng.uniform(0.4, 1.0))
    samples = samples[:int(data_speech.LONGEST * data_speech.RATE)]
    bank = data_speech.noises()[rng.integers(5)]
    start = int(rng.integers(len(bank) - len(samples)))
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-rng.uniform(15, 45) / 20)
    return samples + bank[start:start + len(samples)] * np.float32(level), clip


def speech_set(folder, name, count, rng):
    for i in range(count):
        samples, clip = spoken(rng, name.endswith("flite"))
        path = f"{name}/{i:03}.wav"
        write_wav(folder / path, samples)
        yield {"audio": path, "prompt": TRANSCRIBE, "expected": " ".join(clip.words), "voice": clip.voice}


def quiet_set(folder, name, count, rng):
    for i in range(count):
        path = f"{name}/{i:03}.wav"
        write_wav(folder / path, data_speech.quiet_clip(rng).samples)
        yield {"audio": path, "prompt": TRANSCRIBE, "expected": ""}


def picture_set(folder, name, count, rng):
    """A quarter in combinations never seen, a quarter digits of other writers, the rest new scenes."""
    for i in range(count):
        if i % 4 == 0:
            p = data_pictures.digit(rng, PICTURE_SIZE, held_out=True)
        else:
            p = data_pictures.scene(rng, PICTURE_SIZE, held_out=i % 4 == 1)
        path = f"{name}/{i:03}.png"
        write_png(folder / path, p.pixels)
        group = ["digit", "unseen combination", "seen combination", "seen combination"][i % 4]
        yield {"image": path, "prompt": examples.DESCRIBE, "expected": p.description(), "group": group}


def question_set(folder, name, count, rng):
    make = {"commands": data_text.command, "arithmetic": data_text.arithmetic, "repeat": data_text.repeat}
    for _ in range(count):
        question, answer = make[name](rng, True)
        yield {"prompt": question, "expected": answer}


def free_set(folder, name, count, rng):
    for question, answer in data_text.free():
        yield {"prompt": question, "expected": answer}


def both_set(folder, name, count, rng):
    """A picture and a sound in one turn, and a question about both."""
    for i in range(count):
        p = data_pictures.picture(rng, PICTURE_SIZE, held_out=i % 2 == 0)
        samples, clip = spoken(rng, False)
        image, audio = f"{name}/{i:03}.png", f"{name}/{i:03}.wav"
        write_png(folder / image, p.pixels)
        write_wav(folder / audio, samples)
        yield {"image": image, "audio": audio, "prompt": examples.BOTH[0],
               "expected": examples.see_and_hear(p, clip.words)}


SETS = {"speech-espeak": speech_set, "speech-flite": speech_set, "quiet": quiet_set,
        "pictures": picture_set, "commands": question_set, "free": free_set,
        "arithmetic": question_set, "repeat": question_set, "both": both_set}


def make(folder, seed, say=print):
    """Writes the sets that are not there yet."""
    for number, (name, lines_of) in enumerate(SETS.items()):
        path = folder / f"{name}.jsonl"
        if path.exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, 1000 + number])
        records = list(lines_of(folder, name, COUNTS.get(name, 0), rng))
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        say(f"[heldout] {name}: {len(records)}")
