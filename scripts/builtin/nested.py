"""The smaller model inside: half of each feed-forward network, without some layers (MatFormer).

A cut-out checkpoint computes exactly this: the first columns of the feed-forward networks, their
sparsity by their own statistics, and layers left out whose keys and values nobody else uses.
"""
from contextlib import contextmanager

import torch.nn.functional as F
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nTextDecoderLayer, Gemma3nTextMLP

import config

# The form of a layer that is not skipped; fast.py has another.
layer_forward = Gemma3nTextDecoderLayer.forward


def _mlp_forward(self, x):
    n = getattr(self, "width", None)
    gate = F.linear(x, self.gate_proj.weight[:n])
    if self.activation_sparsity > 0.0:
        gate = self._gaussian_topk(gate)
    up = F.linear(x, self.up_proj.weight[:n])
    return F.linear(self.act_fn(gate) * up, self.down_proj.weight[:, :n])


def _skipping_forward(self, hidden_states, *args, **kwargs):
    if getattr(self, "skipped", False):
        return hidden_states
    return layer_forward(self, hidden_states, *args, **kwargs)


Gemma3nTextMLP.forward = _mlp_forward
Gemma3nTextDecoderLayer.forward = _skipping_forward


@contextmanager
def slice_of(model, active=True, width=config.SLICE_WIDTH, layers=tuple(config.SLICE_LAYERS)):
    """Within it the model computes as its slice, if `active`."""
    every = model.model.language_model.layers
    try:
        for index, layer in enumerate(every):
            layer.mlp.width = width if active else None
            layer.skipped = active and index not in layers
        yield
    finally:
        for layer in every:
            layer.mlp.width, layer.skipped = None, False
