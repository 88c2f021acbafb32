#!/usr/bin/env python3
"""Measures a model on the held-out files: word error rate, pictures, right commands.

    evaluate.py --sets DIR/heldout --reference DIR/gemma3n-builtin [--slice]
    evaluate.py --sets DIR/heldout --program target/release/gemma3n [--model FILE] [--mmproj FILE]

The reference is transformers on the unquantized checkpoint; the program is run as people run it.
Prints one JSON object, then the row of a Markdown table.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import data_pictures
import data_speech

SPEECH = ("speech-espeak", "speech-flite")
COLUMNS = ["speech-espeak", "speech-flite", "quiet", "pictures", "commands", "free", "arithmetic",
           "repeat", "both"]


def records(folder, name, limit):
    lines = (folder / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][:limit]


class Reference:
    """transformers, one prompt at a time, greedy, with its own processor."""

    def __init__(self, checkpoint, sliced):
        import torch
        import config  # registers the picture tower's architecture
        import nested
        from transformers import AutoProcessor, Gemma3nForConditionalGeneration

        self.torch, self.nested, self.sliced, self.config = torch, nested, sliced, config
        self.model = Gemma3nForConditionalGeneration.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
        self.processor = AutoProcessor.from_pretrained(checkpoint)

    def answers(self, folder, name, items):
        return [self.answer(folder, item) for item in items]

    def answer(self, folder, item):
        from PIL import Image

        content, media = [], {}
        if "image" in item:
            media["images"] = [Image.open(folder / item["image"])]
            content.append({"type": "image"})
        if "audio" in item:
            media["audio"] = [data_speech.read_wav((folder / item["audio"]).read_bytes())]
            content.append({"type": "audio"})
        content.append({"type": "text", "text": item["prompt"]})
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
        # The template writes <bos>, so the tokenizer must not.
        inputs = self.processor(text=prompt, **media, return_tensors="pt", add_special_tokens=False)
        start = inputs["input_ids"].shape[1]
        with self.torch.no_grad(), self.nested.slice_of(self.model, self.sliced):
            ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=64,
                                      eos_token_id=[self.config.EOS, self.config.END_OF_TURN])
        return self.processor.tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()


class Program:
    """The built program, with the commands that people use."""

    def __init__(self, binary, model, mmproj):
        self.binary = binary
        self.options = [*(["-m", model] if model else []), *(["--mmproj", mmproj] if mmproj else [])]

    def run(self, command, *arguments):
        line = [self.binary, command, *self.options, "--quiet", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(line[:6])} …: {done.stderr.strip()}")
        return done.stdout

    def answers(self, folder, name, items):
        if name in SPEECH or name == "quiet":
            return self.by_file("transcribe", ["-f", "jsonl"], [folder / item["audio"] for item in items])
        if name == "pictures":
            return self.by_file("describe-image", ["--jsonl"], [folder / item["image"] for item in items])
        return [self.chat(folder, item) for item in items]

    def by_file(self, command, options, paths):
        """All files in one call; the text of each, its segments joined."""
        texts = {str(path): [] for path in paths}
        for line in self.run(command, *options, *paths).splitlines():
            found = json.loads(line)
            texts[found["file"]].append(found["text"].strip())
        return [" ".join(texts[str(path)]) for path in paths]

    def chat(self, folder, item):
        media = [*(["-i", folder / item["image"]] if "image" in item else []),
                 *(["-a", folder / item["audio"]] if "audio" in item else [])]
        return self.run("chat", "--greedy", "-n", "64", *media, item["prompt"]).strip()


def same_but_place(expected, found):
    """Whether shape, colour and count agree, whatever is said of the place."""
    for place in data_pictures.PLACES:
        expected = expected.removesuffix(f" {place}.") if expected.endswith(f" {place}.") else expected
        found = found.removesuffix(f" {place}.") if found.endswith(f" {place}.") else found
    return expected.rstrip(".") == found.rstrip(".")


def figures(name, items, found):
    """Percentages of one set."""
    expected = [item["expected"] for item in items]
    if name in SPEECH:
        errors = sum(data_speech.word_errors(e.split(), f.split()) for e, f in zip(expected, found))
        return {"word_error_rate": 100 * errors / sum(len(e.split()) for e in expected)}
    share = lambda hits: 100 * float(np.mean(hits)) if len(hits) else None  # noqa: E731
    out = {"exact": share([e == f for e, f in zip(expected, found)])}
    if name == "pictures":
        right = [same_but_place(e, f) for e, f in zip(expected, found)]
        out["right"] = share(right)
        for group in sorted({item["group"] for item in items}):
            out[group] = share([r for r, item in zip(right, items) if item["group"] == group])
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True, help="folder of the held-out files")
    parser.add_argument("--reference", help="a checkpoint, for transformers")
    parser.add_argument("--slice", action="store_true", help="with --reference: the slice inside")
    parser.add_argument("--program", help="the gemma3n binary")
    parser.add_argument("--model", help="a GGUF file; else the program's built-in model")
    parser.add_argument("--mmproj", help="the towers' file")
    parser.add_argument("--only", nargs="*", default=COLUMNS, choices=COLUMNS, help="some of the sets")
    parser.add_argument("--limit", type=int, help="items of a set")
    parser.add_argument("--label", default="", help="first column of the table")
    parser.add_argument("--answers", type=Path, help="file for all answers, as lines of JSON")
    options = parser.parse_args()
    if bool(options.reference) == bool(options.program):
        parser.error("one of --reference and --program")
    model = (Reference(options.reference, options.slice) if options.reference
             else Program(options.program, options.model, options.mmproj))
    result, lines = {}, []
    for name in options.only:
        items = records(options.sets, name, options.limit)
        found = model.answers(options.sets, name, items)
        result[name] = {"items": len(items), **figures(name, items, found)}
        lines += [json.dumps({"set": name, **item, "found": f}) + "\n" for item, f in zip(items, found)]
        print(name, result[name], file=sys.stderr, flush=True)
    if options.answers:
        options.answers.write_text("".join(lines))
    print(json.dumps(result))
    cells = [next((f"{v:.1f}" for k, v in result[name].items() if k in ("word_error_rate", "right")),
                  f"{result[name].get('exact', 0):.1f}") if name in result else "" for name in COLUMNS]
    print("| " + " | ".join([options.label, *cells]) + " |")


if __name__ == "__main__":
    main()
