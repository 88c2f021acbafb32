"""One training loop for all stages: schedule, clipping, checkpoints, progress.

A stage is a number of steps; batches depend on the seed and the step only, so that a stage that
was stopped goes on as if it had not been. A checkpoint is written every few minutes, beside its
name first and then renamed.
"""
import json
import math
import os
import time
from pathlib import Path

import torch
import torch.distributed as distributed

import config

CHECKPOINT_SECONDS = 180


def save(path, content):
    """Writes whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    os.replace(partial, path)


def load(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def parameter_groups(module, rate, decay, factor=1.0, skip=()):
    """AdamW groups: decay on matrices only. `factor` scales the rate."""
    matrices, vectors = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and not any(part in name for part in skip):
            (matrices if parameter.dim() > 1 else vectors).append(parameter)
    return [{"params": params, "lr": rate * factor, "weight_decay": weight}
            for params, weight in ((matrices, decay), (vectors, 0.0)) if params]


def schedule(share, warm_up):
    """Of the peak rate: a linear rise, then a cosine down to nothing."""
    if share < warm_up:
        return share / warm_up
    return 0.5 * (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up)))


class Run:
    """A folder with everything that was trained so far, and how to train."""

    def __init__(self, folder, seed=1, scale=1.0):
        self.folder, self.seed, self.scale = Path(folder), seed, scale

    def path(self, stage):
        return self.folder / "stages" / f"{stage}.pt"

    def done(self, stage):
        return self.path(stage).exists()

    def finish(self, stage, states):
        """Keeps a stage's result; its checkpoint is not needed any more."""
        if os.environ.get("RANK", "0") != "0":
            return
        save(self.path(stage), states)
        (self.folder / "checkpoints" / f"{stage}.pt").unlink(missing_ok=True)

    def model(self, *stages):
        """A fresh model, with what these stages trained laid over it in turn."""
        model = config.make_model(self.seed)
        for stage in stages:
            missing = model.load_state_dict(load(self.path(stage)), strict=False)
            assert not missing.unexpected_keys, missing.unexpected_keys
        return model

    def steps(self, stage, steps):
        return Steps(self, stage, max(int(steps * self.scale), 20))


class Steps:
    """A stage's steps, to iterate over; each calls backward once or more, then update.

    Where two processes train one model (environment RANK and WORLD_SIZE), gradients are summed
    over them; only the first one measures, prints and writes.
    """

    def __init__(self, run, stage, total):
        self.run, self.stage, self.total = run, stage, total
        self.step, self.seconds, self.losses = 0, 0.0, []
        self.checkpoint = run.folder / "checkpoints" / f"{stage}.pt"
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

    def start(self, modules, optimizer, warm_up=0.05):
        """What is trained; takes up a checkpoint if there is one."""
        self.modules, self.optimizer, self.warm_up = modules, optimizer, warm_up
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.checkpoint.exists():
            saved = load(self.checkpoint)
            self.step, self.seconds = saved["step"], saved["seconds"]
            for name, module in modules.items():
                module.load_state_dict(saved["modules"][name])
            optimizer.load_state_dict(saved["optimizer"])
            self.say(f"goes on at step {self.step}")
        if self.world > 1:
            distributed.barrier()  # nobody writes the checkpoint before both have read it
        return self

    @property
    def share(self):
        """Of the stage, done: 0 to 1."""
        return self.step / self.total

    def __iter__(self):
        self.saved = self.mark = time.monotonic()
        while self.step < self.total:
            yield self.step
            if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                self.write_checkpoint()

    def shares(self, parts):
        """Which of a batch's parts are this process's."""
        return range(self.rank, parts, self.world)

    def backward(self, loss, parts=1):
        """Adds the gradient of one of `parts` equal parts of the batch."""
        (loss / parts).backward()
        self.losses.append(float(loss.detach()))

    def update(self):
        """One step of the optimizer."""
        factor = schedule((self.step + 1) / (self.total + 1), self.warm_up)
        for group, peak in zip(self.optimizer.param_groups, self.peaks):
            group["lr"] = peak * factor * (self.share >= group.get("opens", 0.0))
        if self.world > 1:
            self.sum_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if torch.isfinite(norm):  # a broken batch is left out
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        now = time.monotonic()
        self.seconds, self.mark = self.seconds + now - self.mark, now
        self.step += 1

    def sum_gradients(self):
        have = torch.tensor([float(p.grad is not None) for p in self.parameters])
        distributed.all_reduce(have, distributed.ReduceOp.MAX)
        chosen = [p for p, has in zip(self.parameters, have) if has]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in chosen])
        distributed.all_reduce(flat)
        for p, grad in zip(chosen, flat.split([p.numel() for p in chosen])):
            p.grad = grad.view_as(p)

    def due(self, every):
        """Whether figures on held-out data are due: every so many steps, and at the end."""
        return self.rank == 0 and (self.step % every == 0 or self.step == self.total)

    def report(self, figures):
        """One line on the terminal, and one of JSON in the run's log. `figures` measures."""
        found = figures()
        loss = sum(self.losses) / max(len(self.losses), 1)
        self.losses = []
        left = self.seconds / max(self.step, 1) * (self.total - self.step)
        self.say(f"{self.step}/{self.total} {self.seconds:.0f} s, {left / 60:.0f} min left, "
                 f"loss {loss:.3f} {short(found)}")
        record = {"stage": self.stage, "step": self.step, "seconds": round(self.seconds),
                  "loss": round(loss, 4), **found}
        with open(self.run.folder / "log.jsonl", "a") as log:
            log.write(json.dumps(record) + "\n")
        self.mark = time.monotonic()  # measuring is not training

    def say(self, text):
        if self.rank == 0:
            print(f"[{self.stage}] {text}", flush=True)

    def write_checkpoint(self):
        self.saved = time.monotonic()
        if self.rank == 0:
            save(self.checkpoint, {
                "step": self.step, "seconds": self.seconds, "optimizer": self.optimizer.state_dict(),
                "modules": {name: module.state_dict() for name, module in self.modules.items()}})


def short(figures):
    """name value name value …"""
    if isinstance(figures, dict):
        return " ".join(f"{name} {short(part)}" for name, part in figures.items())
    return f"{figures:.1f}" if isinstance(figures, float) else str(figures)
