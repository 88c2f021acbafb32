#!/usr/bin/env python3
"""Makes tests/fixtures/sounds: short made speech with gaps in files of every kind, and the times of the speech.

    python scripts/fixtures_sounds.py OUT    # default: tests/fixtures/sounds

`speech.json` has for each file its source ("phrases" or "short"), and for each source its seconds and the stretches of speech:
where the clean speech, before anything was added, is louder than 40 dB below its loudest 10 ms. Compressed files are of the
same speech. Noise is seeded; programs of other versions make other bytes, so the versions are recorded, too.

Needs espeak-ng, sox and ffmpeg on the path, and numpy (scripts/requirements.txt).
"""
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

RATE = 48_000
PHRASES = [("She sells sea shells.", 1.0), ("Yes.", 0.7), ("Twenty three people were waiting.", 0.9)]


def run(*command, data=None):
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def samples(wav):
    """Samples at RATE of a WAV file."""
    raw = run("sox", "-t", "wav", "-", "-t", "raw", "-r", str(RATE), "-c", "1", "-e", "floating-point", "-b", "32", "-D", "-", data=wav)
    return np.frombuffer(raw, "<f4").astype(np.float64)


def trimmed(x):
    """Speech without what is quieter than 40 dB below its loudest 10 ms at its ends."""
    size = RATE // 100
    power = np.convolve(x**2, np.ones(size) / size, "same")
    loud = np.flatnonzero(power > power.max() * 1e-4)
    return x[loud[0] : loud[-1] + 1]


def phrases():
    parts, times, at = [np.zeros(RATE // 2)], [], RATE // 2
    for text, gap in PHRASES:
        speech = trimmed(samples(run("espeak-ng", "-v", "en-us", "-s", "170", "--stdout", text)))
        speech = 0.5 * speech / np.abs(speech).max()
        silence = np.zeros(int(gap * RATE))
        times.append([round(at / RATE, 4), round((at + len(speech)) / RATE, 4)])
        parts += [speech, silence]
        at += len(speech) + len(silence)
    return np.concatenate(parts), times


def wav(x, channels=1):
    """A float WAV file of RATE."""
    data = x.astype("<f4").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, channels, RATE, RATE * 4 * channels, 4 * channels, 32, b"data", len(data))
    return head + data


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests/fixtures/sounds")
    out.mkdir(parents=True, exist_ok=True)
    x, times = phrases()
    noise = np.random.default_rng(5).standard_normal(len(x))
    noisy = x + noise * np.sqrt(np.mean(x[x != 0] ** 2) / 100 / np.mean(noise**2))
    sources = {"phrases": {"seconds": round(len(x) / RATE, 4), "speech": times}}
    # the second phrase with 0.5 s before and 0.2 s after it
    begin, end = (int(t * RATE) for t in times[1])
    short = x[begin - RATE // 2 : end + RATE // 5]
    sources["short"] = {"seconds": round(len(short) / RATE, 4), "speech": [[0.5, round(0.5 + (end - begin) / RATE, 4)]]}
    # the speech left, something else right
    stereo = np.stack([short, 0.05 * np.sin(2 * np.pi * 300 * np.arange(len(short)) / RATE)], -1).ravel()
    files = {}

    def sox(name, source, signal, *options, channels=1):
        run("sox", "-R", "-t", "wav", "-", *options, str(out / name), data=wav(signal, channels))
        files[name] = source

    def ffmpeg(name, source, signal, *options):
        bits = ["-fflags", "+bitexact", "-flags", "+bitexact", "-map_metadata", "-1"]
        run("ffmpeg", "-y", "-v", "error", "-f", "wav", "-i", "-", *options, *bits, str(out / name), data=wav(signal))
        files[name] = source

    sox("16k.wav", "phrases", x, "-r", "16000", "-b", "16")
    sox("noisy.wav", "phrases", noisy, "-r", "8000", "-b", "16")
    sox("8bit.wav", "short", short, "-r", "11025", "-b", "8", "-e", "unsigned")
    sox("24bit.wav", "short", short, "-r", "11025", "-b", "24")
    sox("32bit.wav", "short", short, "-r", "8000", "-b", "32", "-e", "signed")
    sox("float.wav", "short", short, "-r", "8000", "-b", "32", "-e", "floating-point")
    sox("mulaw.wav", "short", short, "-r", "8000", "-e", "mu-law")
    sox("alaw.wav", "short", short, "-r", "8000", "-e", "a-law")
    sox("adpcm.wav", "short", short, "-r", "16000", "-e", "ima-adpcm")
    sox("8k.aiff", "short", short, "-r", "8000", "-b", "16")
    sox("stereo.flac", "short", stereo, "-b", "16", channels=2)
    sox("192k.wav", "short", x[RATE // 2 : RATE // 2 + RATE // 20], "-r", "192000", "-b", "24")
    del files["192k.wav"]
    ffmpeg("speech.mp3", "phrases", x, "-c:a", "libmp3lame", "-b:a", "32k", "-ar", "22050")
    ffmpeg("speech.ogg", "phrases", x, "-c:a", "libvorbis", "-q:a", "0", "-ar", "22050")
    ffmpeg("speech.m4a", "phrases", x, "-c:a", "aac", "-b:a", "32k", "-ar", "22050", "-movflags", "+faststart")
    ffmpeg("alac.m4a", "short", short, "-c:a", "alac", "-ar", "16000", "-movflags", "+faststart")
    ffmpeg("speech.mkv", "short", short, "-c:a", "flac", "-ar", "16000")
    ffmpeg("speech.caf", "short", short, "-c:a", "pcm_s16le", "-ar", "8000")
    ffmpeg("opus.ogg", "short", short, "-c:a", "libopus", "-b:a", "16k")
    picture = ["-f", "lavfi", "-i", "color=c=gray:s=16x16:r=5:d=1.5", "-c:v", "mpeg4"]
    ffmpeg("video.mp4", "short", short, *picture, "-c:a", "aac", "-b:a", "32k", "-ar", "22050", "-map", "0:a", "-map", "1:v")
    ffmpeg("mute.mp4", "short", short, *picture, "-an", "-map", "1:v")
    for name in ["opus.ogg", "mute.mp4"]:
        del files[name]
    versions = [run("espeak-ng", "--version"), run("sox", "--version"), run("ffmpeg", "-version")]
    made = {"versions": [v.decode().splitlines()[0].split("Data at")[0].strip() for v in versions], "sources": sources, "files": files}
    (out / "speech.json").write_text(json.dumps(made, indent=1) + "\n")
    print(sum(f.stat().st_size for f in out.iterdir()), "bytes in", out)


main()
