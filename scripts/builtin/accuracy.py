#!/usr/bin/env python3
"""What types, slices and importance matrices do to answers: a Markdown table.

    accuracy.py --run DIR --program target/release/gemma3n [--limit 100]

Makes each file of DIR/gemma3n-builtin by the program itself, asks it everything in DIR/heldout, and
removes the file again. The towers stay Q8_0.
"""
import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import config
import data_text
import evaluate
import export

# Type of the text model, with an importance matrix or not, whole or its slice.
ROWS = [("F32", False, False), ("Q8_0-small8", False, False), ("Q6_K-small8", False, False),
        ("Q5_K_M-small8", False, False), ("Q4_K_M-small8", False, False), ("Q4_0-small8", False, False),
        ("Q3_K_M-small8", False, False), ("Q3_K_M-small8", True, False), ("Q2_K-small8", False, False),
        ("Q2_K-small8", True, False), ("IQ2_XS-small8", True, False),
        ("F32", False, True), ("Q8_0-small8", False, True), ("Q4_K_M-small8", False, True)]
COLUMNS = {"speech-espeak": "word_error_rate", "pictures": "right", "commands": "exact", "free": "exact",
           "arithmetic": "exact", "repeat": "exact", "both": "exact"}


def calibration():
    """Conversations as in training, with their control tokens."""
    rng = np.random.default_rng(11)
    turns = []
    for _ in range(600):
        question, answer = data_text.exchange(rng)
        turns.append(f"<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n{answer}<end_of_turn>\n")
    return "".join(turns)


class Files:
    """GGUF files of the checkpoint, made when they are needed."""

    def __init__(self, program, checkpoint, folder):
        self.program, self.folder = program, folder
        self.whole = folder / "whole.gguf"
        self.run("convert", checkpoint, "-o", self.whole, "--type", "F32", "--mmproj-type", "Q8_0")
        self.towers = next(folder.glob("mmproj-*.gguf"))
        (folder / "text.txt").write_text(calibration())
        self.matrix = folder / "imatrix.gguf"
        self.run("imatrix", "-m", self.whole, "-f", folder / "text.txt", "-o", self.matrix, "--parse-special")

    def run(self, *arguments):
        subprocess.run([self.program, *map(str, arguments), "--quiet"], check=True, stdout=subprocess.DEVNULL)

    def make(self, kind, matrix, sliced):
        """Path of the file; overwrites the one before."""
        path = self.whole
        if kind != "F32":
            path = self.folder / "quantized.gguf"
            self.run("quantize", self.whole, path, kind, "--force", *(["--imatrix", self.matrix] if matrix else []))
        if sliced:
            left_out = sorted(set(range(config.TEXT["num_hidden_layers"])) - set(config.SLICE_LAYERS))
            whole, path = path, self.folder / "sliced.gguf"
            self.run("slice", whole, "--ffn", config.SLICE_WIDTH, "--skip-layers", ",".join(map(str, left_out)),
                     "-o", path, "--force")
        return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="train.py's folder")
    parser.add_argument("--program", required=True, help="the gemma3n binary")
    parser.add_argument("--limit", type=int, help="items of a set")
    options = parser.parse_args()
    print("| text model | MB | words wrong | pictures | commands | free questions | sums | repeating | both |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        files = Files(options.program, options.run / export.NAME, Path(folder))
        for kind, matrix, sliced in ROWS:
            path = files.make(kind, matrix, sliced)
            model = evaluate.Program(options.program, str(path), str(files.towers))
            cells = []
            for name, figure in COLUMNS.items():
                items = evaluate.records(options.run / "heldout", name, options.limit)
                found = model.answers(options.run / "heldout", name, items)
                cells.append(f"{evaluate.figures(name, items, found)[figure]:.1f}")
            label = kind + (", importance matrix" if matrix else "") + (", slice" if sliced else "")
            print("| " + " | ".join([label, f"{path.stat().st_size / 1e6:.2f}", *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
