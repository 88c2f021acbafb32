#!/usr/bin/env python3
"""Trains the built-in model from nothing: data, ears, eyes, text, everything together, export.

    train.py --out DIR                       all stages; goes on where it was stopped
    train.py --out DIR --stages eyes text    some of them
    train.py --out DIR --scale 0.02          a trial of minutes, to see that everything runs

Eyes train beside data and ears, one thread each; after that two processes compute half of each
batch. README.md has the durations.
"""
import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# Stages that may run side by side are in one row, by chains of stages.
PLAN = [[["data", "ears"], ["eyes"]], [["text"]], [["listening"]], [["seeing"]], [["everything"]], [["export"]]]
STAGES = [stage for row in PLAN for chain in row for stage in chain]
JOINT = ("text", "listening", "seeing", "everything")


def make_data(run):
    import data_speech
    import data_text
    import heldout
    import tokenizer

    lines = data_text.corpus() + data_text_of_media()
    tokenizer.make(run.folder / "tokenizer.json", lines)
    heldout.make(run.folder / "heldout", run.seed)
    count = max(run.scale, 0.1) if run.scale < 1 else 1
    data_speech.make(run.folder / "speech", run.seed, int(6400 * count), int(12800 * count))
    run.finish("data", {})


def data_text_of_media():
    """Answers and questions about pictures and sounds, for the tokenizer."""
    import numpy as np

    import data_pictures
    import data_speech
    import examples

    rng = np.random.default_rng(3)
    lines = [" ".join(data_speech.WORDS)] * 30 + examples.BOTH * 5 + examples.SAME * 5
    # A transcript's first word has no space before it, and is to be one token all the same.
    lines += data_speech.WORDS * 60 + [examples.DESCRIBE] * 60
    for _ in range(400):
        picture = data_pictures.picture(rng, 32)
        lines += [picture.description(), *data_pictures.questions(rng, picture),
                  examples.see_and_hear(picture, ["one"]), examples.transcribe_prompt(rng)]
    return lines


def export(run, binary):
    import export as exporting

    checkpoint = run.folder / exporting.NAME
    parameters = exporting.write(run, "everything", checkpoint)
    print(f"[export] {checkpoint}: {parameters / 1e6:.2f} M parameters", flush=True)
    if binary:
        for path in exporting.convert(binary, checkpoint, run.folder / "gguf"):
            print(f"[export] {path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    run.finish("export", {})


def run_stage(stage, options):
    """One stage, in this process."""
    import torch

    torch.set_num_threads(1)
    import loop

    run = loop.Run(options.out, options.seed, options.scale)
    if run.done(stage):
        return
    if "RANK" in os.environ:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{os.environ['MEETING']}", rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]))
    if stage == "data":
        make_data(run)
    elif stage == "export":
        export(run, options.binary)
    elif stage in ("ears", "eyes"):
        __import__(stage).train(run)
    else:
        import joint

        getattr(joint, f"train_{stage}")(run)


def start(stage, options, environment=None):
    """A process for one stage."""
    command = [sys.executable, __file__, "--out", str(options.out), "--seed", str(options.seed),
               "--scale", str(options.scale), "--one", stage]
    if options.binary:
        command += ["--binary", options.binary]
    # Threads would only get into each other's way: each process has a core.
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
           "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, env={**os.environ, **one, **(environment or {})})


def run_row(chains, options):
    """Chains of stages side by side, each stage when the one before it in its chain is done; a
    chain is a list of functions that start processes. When one fails or we are interrupted the
    others are stopped too."""
    waiting, running = [list(chain) for chain in chains], {}
    try:
        while any(waiting) or running:
            for index, chain in enumerate(waiting):
                if chain and index not in running and len(running) < options.processes:
                    running[index] = chain.pop(0)()
            time.sleep(0.2)
            for index, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[index]
                if process.returncode:
                    sys.exit("a stage failed; what was done is kept, run the same command to go on")
    finally:
        for process in running.values():
            process.terminate()
            process.wait()


def together(stage, options):
    """Chains that compute one stage in as many processes as there may be."""
    meeting = options.out / "checkpoints" / f"meeting-{os.getpid()}"
    meeting.parent.mkdir(parents=True, exist_ok=True)
    meeting.unlink(missing_ok=True)
    place = {"WORLD_SIZE": str(options.processes), "MEETING": str(meeting.absolute())}
    return [[lambda rank=rank: start(stage, options, {**place, "RANK": str(rank)})]
            for rank in range(options.processes)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--stages", nargs="*", default=STAGES, choices=STAGES)
    parser.add_argument("--scale", type=float, default=1.0, help="of the steps and the speech")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, choices=(1, 2))
    parser.add_argument("--binary", help="gemma3n, to make GGUF files at the end")
    parser.add_argument("--one", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return run_stage(options.one, options)
    # Ending this process ends its stages.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    options.out.mkdir(parents=True, exist_ok=True)
    for row in PLAN:
        chains = [[stage for stage in chain if stage in options.stages] for chain in row]
        chains = [[stage for stage in chain if not (options.out / "stages" / f"{stage}.pt").exists()]
                  for chain in chains]
        if chains[0] and chains[0][0] in JOINT and options.processes > 1:
            run_row(together(chains[0][0], options), options)
        else:
            run_row([[lambda stage=stage: start(stage, options) for stage in chain]
                     for chain in chains], options)


if __name__ == "__main__":
    main()
