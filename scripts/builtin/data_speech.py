"""Spoken digits and command words, by espeak-ng and flite, and what is done to the sound.

Clips are made once, in parts that are skipped when they exist. Noise, gain, pitch and the joining
of clips are drawn anew for every batch, at the waveform.
"""
import io
import json
import subprocess
import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.signal import lfilter, resample_poly

import config

RATE = 16000
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
COMMANDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "open", "close",
            "start", "play", "pause", "next", "back", "help", "save", "load", "copy", "delete",
            "search", "print", "cancel", "home", "menu", "louder", "quiet", "light"]
WORDS = DIGITS + COMMANDS
LONGEST = config.AUDIO_TOKENS * 0.16  # seconds

ACCENTS = ["en-us", "en-gb", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd",
           "en-029", "en-us-nyc"]
# espeak-ng's voice variants without whispers, effects and caricatures.
VARIANTS = """adam Alex Alicia Andrea Andy antonio aunty belinda benjamin boris caleb david Denis
Diogo ed edward edward2 Gene gustave announcer Henrique Hugo iven iven2 iven4 Jacky john kaukovalta
Lee marcelo Marco Mario max Michael michel miguel Nguyen paul pedro quincy RicishayMax rob robert
robosoft robosoft3 steph steph3 Tweaky zac anika f1 f2 f4 f5 grandpa grandma klatt klatt2 klatt4
klatt5 klatt6 m1 m2 m3 m4 m6 m7 norbert sandro shelby travis""".split()
HELD_OUT_VARIANTS = ["f3", "m5", "m8", "Gene2", "linda", "victor", "Annie", "klatt3", "steph2",
                     "Mike", "pablo", "iven3"]
FLITE, HELD_OUT_FLITE = ["kal16", "rms"], ["slt", "awb"]
PART = 1000  # clips of a file


@dataclass
class Clip:
    """Samples (float32 in -1..1) and the words in them."""

    samples: np.ndarray
    words: list
    voice: str


def run(command):
    return subprocess.run(command, check=True, capture_output=True).stdout


def read_wav(data):
    """Samples of a WAV at 16 kHz. espeak-ng writes a wrong length when it writes to a pipe, so
    everything to the end is read."""
    with wave.open(io.BytesIO(data)) as file:
        rate = file.getframerate()
    samples = np.frombuffer(data[44:len(data) // 2 * 2], np.int16).astype(np.float32) / 32768
    if rate != RATE:
        divisor = np.gcd(rate, RATE)
        samples = resample_poly(samples, RATE // divisor, rate // divisor).astype(np.float32)
    return samples


def trim(samples, quiet=0.01):
    """Without the silence at both ends, so that the clip's end is the last word's."""
    loud = np.flatnonzero(np.abs(samples) > quiet * max(np.abs(samples).max(), 1e-6))
    return samples[max(loud[0] - 160, 0):loud[-1] + 160] if len(loud) else samples


def speak(rng, words, held_out=False, flite=False):
    """One phrase in a random voice, speed and pitch."""
    text = " ".join(words)
    if flite:
        voice = str(rng.choice(HELD_OUT_FLITE if held_out else FLITE))
        pitch = int(rng.integers(90, 220)) if voice == "slt" else int(rng.integers(75, 170))
        data = run(["flite", "-voice", voice, "--setf", f"duration_stretch={rng.uniform(0.8, 1.35):.2f}",
                    "--setf", f"int_f0_target_mean={pitch}", "-t", text, "-o", "/dev/stdout"])
        voice = "flite " + voice
    else:
        variant = str(rng.choice(HELD_OUT_VARIANTS if held_out else VARIANTS))
        voice = f"{rng.choice(ACCENTS)}+{variant}"
        data = run(["espeak-ng", "-v", voice, "-s", str(rng.integers(110, 211)),
                    "-p", str(rng.integers(25, 76)), "-g", str(rng.integers(0, 12)), "--stdout", text])
    samples = trim(read_wav(data))
    return Clip(samples / max(np.abs(samples).max(), 1e-6) * 0.8, list(words), voice)


def phrase(rng):
    """Words to say: a string of digits, some commands, or both."""
    kind = rng.random()
    if kind < 0.5:
        return list(rng.choice(DIGITS, rng.integers(1, 8)))
    if kind < 0.8:
        return list(rng.choice(COMMANDS, rng.integers(1, 5)))
    return list(rng.choice(WORDS, rng.integers(2, 7)))


def make_clip(seed, index, single):
    rng = np.random.default_rng([seed, 3, index])
    words = [WORDS[rng.integers(len(WORDS))]] if single else phrase(rng)
    return speak(rng, [str(word) for word in words], flite=rng.random() < 0.2)


def make(folder, seed, singles=6400, phrases=12800, say=print):
    """Writes all clips: NNN.npy with 16-bit samples end to end, NNN.json with words and lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    total = singles + phrases
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, total, PART):
            path = folder / f"{start // PART:03}.json"
            if path.exists():
                continue
            indices = range(start, min(start + PART, total))
            clips = list(pool.map(lambda i: make_clip(seed, i, i < singles), indices))
            np.save(path.with_suffix(".npy"), np.concatenate(
                [(clip.samples * 32767).astype(np.int16) for clip in clips]))
            path.write_text(json.dumps([[len(c.samples), c.words, c.voice] for c in clips]))
            say(f"[speech] {indices[-1] + 1}/{total} clips")


class Speech:
    """The clips of a folder, sorted by length, in mapped memory."""

    def __init__(self, folder):
        self.items = []  # (length, part, offset, words)
        self.parts = []
        for path in sorted(folder.glob("*.json")):
            self.parts.append(np.load(path.with_suffix(".npy"), mmap_mode="r"))
            offset = 0
            for length, words, _ in json.loads(path.read_text()):
                if 3200 < length < (LONGEST - 0.75) * RATE:
                    self.items.append((length, len(self.parts) - 1, offset, words))
                offset += length
        self.items.sort(key=lambda item: item[0])
        self.by_count, self.alone = {}, {}
        for position, item in enumerate(self.items):
            self.by_count.setdefault(len(item[3]), []).append(position)

    def clip(self, position):
        length, part, offset, words = self.items[position]
        samples = self.parts[part][offset:offset + length].astype(np.float32) / 32768
        return Clip(samples, words, "")

    def batch(self, rng, size, most_words, joined=0.0, least_words=1):
        """Clips of so many words and about one length; a share `joined` of several with
        pauses between them, as `transcribe` joins neighbours."""
        positions = self.of_words(least_words, most_words)
        middle = int(rng.integers(len(positions)))
        window = max(len(positions) // 20, size)
        low = min(max(middle - window // 2, 0), max(len(positions) - window, 0))
        chosen = rng.integers(low, min(low + window, len(positions)), size)
        clips = [self.clip(positions[i]) for i in chosen]
        if rng.random() < joined:
            clips = [self.join(rng, clip) for clip in clips]
        return clips

    def digit(self, rng, number=None):
        """One spoken digit: `number`, or any."""
        word = number if number is not None else DIGITS[rng.integers(10)]
        if word not in self.alone:
            positions = [p for p in self.by_count[1] if self.items[p][3] == [word]]
            self.alone[word] = positions
        return self.clip(self.alone[word][rng.integers(len(self.alone[word]))])

    @lru_cache
    def of_words(self, least, most):
        return sorted(p for count, ps in self.by_count.items() if least <= count <= most for p in ps)

    def join(self, rng, clip):
        """The clip and others behind it, up to a random length."""
        room = int(rng.uniform(2.5, LONGEST - 0.75) * RATE)
        parts, words = [clip.samples], list(clip.words)
        length = len(clip.samples)
        while True:
            other = self.clip(int(rng.integers(len(self.items))))
            pause = int(rng.uniform(0.15, 1.2) * RATE)
            length += pause + len(other.samples)
            if length > room:
                return Clip(np.concatenate(parts), words, "")
            parts += [np.zeros(pause, np.float32), other.samples * np.float32(rng.uniform(0.5, 1))]
            words += other.words


@lru_cache
def noises():
    """A minute of noise in each of several colours, RMS 1."""
    rng = np.random.default_rng(7)
    white = rng.standard_normal(60 * RATE).astype(np.float32)
    colours = [white, lfilter([1], [1, -0.9], white), lfilter([1], [1, -0.98], white),
               lfilter([1, -0.9], [1], white), lfilter([1], [1, -1.6, 0.8], white)]
    return [(c / np.sqrt(np.mean(c**2))).astype(np.float32) for c in colours]


def disturb(rng, clip, strength=1.0):
    """Another speed and pitch, silence at the ends, gain, and noise. Returns the samples and the
    end of speech in them."""
    samples = clip.samples
    if rng.random() < 0.5 * strength:
        # Not so slow that the end would be cut off.
        slowest = max(0.9, len(samples) / ((LONGEST - 0.7) * RATE))
        factor = rng.uniform(slowest, 1.12)
        grid = np.arange(0, len(samples) - 1, factor)
        samples = np.interp(grid, np.arange(len(samples)), samples).astype(np.float32)
    before, after = (int(x) for x in rng.uniform(0.02, 0.35, 2) * RATE)
    samples = np.pad(samples, (before, after))[:int(LONGEST * RATE)] * np.float32(rng.uniform(0.3, 1.2))
    if rng.random() < 0.8 * strength:
        bank = noises()[rng.integers(5)]
        start = int(rng.integers(len(bank) - len(samples)))
        level = np.sqrt(np.mean(clip.samples**2)) * 10 ** (-rng.uniform(8, 40) / 20)
        samples = samples + bank[start:start + len(samples)] * np.float32(level)
    return np.clip(samples, -1, 1).astype(np.float32), len(samples) - after


def quiet_clip(rng):
    """Silence or mere noise: nothing is said."""
    samples = np.zeros(int(rng.uniform(0.4, 4) * RATE), np.float32)
    if rng.random() < 0.8:
        bank = noises()[rng.integers(5)]
        start = int(rng.integers(len(bank) - len(samples)))
        samples = bank[start:start + len(samples)] * np.float32(10 ** rng.uniform(-4, -1))
    return Clip(samples, [], "")


# ---- features, as the reference's extractor computes them, in torch


@lru_cache
def mel_tables():
    """(window [512], mel filters [513, 128]) of the reference's own extractor."""
    from transformers import Gemma3nAudioFeatureExtractor

    extractor = Gemma3nAudioFeatureExtractor()
    return torch.from_numpy(extractor.window), torch.from_numpy(extractor.mel_filters).float()


def frames_of(length):
    """Frames that the reference makes of so many samples alone (padded to a multiple of 128)."""
    return max((-(-length // 128) * 128 - 513) // 160 + 1, 1)


def log_mel(waves):
    """Features [batch, frames, 128] and the mask of padding (True where there is none of a clip).

    Padding is zeros in the features, as the convolutions pad a clip that stands alone.
    """
    counts = [frames_of(len(wave)) for wave in waves]
    samples = torch.zeros(len(waves), 160 * (max(counts) - 1) + 513)
    for row, wave in zip(samples, waves):
        n = min(len(wave), len(row))
        row[:n] = torch.from_numpy(np.ascontiguousarray(wave[:n]))
    window, filters = mel_tables()
    x = samples.unfold(-1, 513, 160)
    x = torch.cat([x[..., :1] * 0.03, x[..., 1:-1] - 0.97 * x[..., :-2]], -1) * window
    features = torch.log((torch.fft.rfft(x, n=1024).abs() @ filters).clamp(min=1e-5))
    padding = torch.arange(features.shape[1])[None, :] >= torch.tensor(counts)[:, None]
    return features.masked_fill(padding[:, :, None], 0.0), padding


def spoil(rng, features, padding):
    """SpecAugment, another channel, and another length of the vocal tract, in place of real
    speakers' and rooms' variety."""
    batch, frames, bins = features.shape
    position = np.arange(bins)[None, :] * rng.uniform(0.88, 1.12, (batch, 1))
    low = np.clip(np.floor(position), 0, bins - 2).astype(np.int64)
    weight = torch.from_numpy(np.clip(position - low, 0, 1)).float()[:, None, :]
    low = torch.from_numpy(low)[:, None, :].expand(-1, frames, -1)
    warped = features.gather(2, low) * (1 - weight) + features.gather(2, low + 1) * weight
    knots = torch.from_numpy(rng.normal(0, 0.6, (batch, 1, 6))).float()
    warped = warped + torch.nn.functional.interpolate(knots, bins, mode="linear", align_corners=True)
    masked = torch.zeros(batch, frames, bins, dtype=torch.bool)
    for row in masked:
        for _ in range(2):
            f = rng.integers(bins - 22)
            row[:, f:f + rng.integers(23)] = True
            t = rng.integers(max(frames - 18, 1))
            row[t:t + rng.integers(19)] = True
    floor = torch.from_numpy(rng.uniform(-9, -3, (batch, 1, 1))).float()
    warped = torch.where(masked, floor.expand_as(warped), warped)
    return warped.masked_fill(padding[:, :, None], 0.0)


def word_errors(expected, found):
    """Edit distance in words."""
    row = list(range(len(found) + 1))
    for i, word in enumerate(expected, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


def held_out_clips(folder, count):
    """{engine: clips} in voices that are never in training, from the files of `heldout.make`."""
    out = {}
    for engine in ("espeak", "flite"):
        lines = (folder / f"speech-{engine}.jsonl").read_text().splitlines()[:count]
        records = [json.loads(line) for line in lines]
        out[engine] = [Clip(read_wav((folder / r["audio"]).read_bytes()), r["expected"].split(), r["voice"])
                       for r in records]
    return out
