"""Faster forms of some of the reference's modules for training; the same mathematics, and the
same numbers within rounding. The exported checkpoint is measured with the reference's own.

The text layer takes the active stream to be the first and clips no coefficients: fresh weights are
far from the clip of 120.
"""
import torch
import torch.nn.functional as F
from timm.layers.norm import RmsNorm2d
from timm.layers.norm_act import RmsNormAct2d
from transformers.models.gemma3n import modeling_gemma3n as reference

import nested


class Norm(torch.autograd.Function):
    """RMS norm over one dimension, with a gradient of few passes over memory."""

    @staticmethod
    def forward(ctx, x, weight, eps, dim):
        shape = [1] * x.dim()
        shape[dim] = -1
        size = x.shape[dim]
        scale = torch.linalg.vector_norm(x, dim=dim, keepdim=True).square_().div_(size).add_(eps).rsqrt_()
        normed = x * scale
        ctx.dim = dim
        ctx.save_for_backward(normed, scale, weight)
        return normed if weight is None else normed * weight.view(shape)

    @staticmethod
    def backward(ctx, grad):
        normed, scale, weight = ctx.saved_tensors
        grad_weight = None
        product = grad * normed
        if weight is None:
            grad = grad.clone()
            mean = product.mean(ctx.dim, keepdim=True)
        else:
            shape = [1] * grad.dim()
            shape[ctx.dim] = -1
            others = [d for d in range(grad.dim()) if d != ctx.dim % grad.dim()]
            grad_weight = product.sum(others)
            grad = grad * weight.view(shape)
            share = weight / weight.numel()
            # A product with a vector reads the memory once.
            mean = (F.conv2d(product, share.view(1, -1, 1, 1)) if ctx.dim == 1
                    else (product @ share).unsqueeze(-1))
        grad.addcmul_(normed, mean, value=-1).mul_(scale)
        return grad, grad_weight, None, None


def text_norm(self, x):
    return Norm.apply(x, self.weight if self.with_scale else None, self.eps, -1)


def picture_norm(self, x):
    return Norm.apply(x, self.weight, self.eps, 1)


def picture_norm_and_act(self, x):
    return self.act(self.drop(picture_norm(self, x)))


def convolution(self, x):
    """Gemma3nAudioSSCPConvBlock.forward without its copies and masks of ones."""
    y = self.conv(F.pad(x, self.manual_padding))
    _, channels, frames, bins = y.shape
    n = torch.arange(1, frames + 1, dtype=y.dtype) * (channels * bins)
    d = y - (y.sum((1, 3)).cumsum(1) / n)[:, None, :, None]
    variance = d.square().sum((1, 3)).cumsum(1) / n
    scale = torch.rsqrt(variance + self.norm.eps)[:, None, :, None]
    return F.relu(d * scale * self.norm.weight[:, None, None])


class Predict(torch.autograd.Function):
    """AltUp's prediction: streams [n, 4, d] and coefficients [n, 4, 4] to all streams' predictions
    and the active one's by itself."""

    @staticmethod
    def forward(ctx, streams, coefficients):
        ctx.save_for_backward(streams, coefficients)
        predictions = torch.baddbmm(streams, coefficients, streams)
        return predictions, predictions[:, 0].contiguous()

    @staticmethod
    def backward(ctx, grad, grad_active):
        streams, coefficients = ctx.saved_tensors
        grad = grad.clone()
        grad[:, 0] += grad_active
        return (torch.baddbmm(grad, coefficients.transpose(1, 2), grad),
                torch.bmm(grad, streams.transpose(1, 2)))


class Correct(torch.autograd.Function):
    """AltUp's correction: predictions [n, 4, d], the layer's output [n, d], coefficients [n, 4] to
    all corrected streams and the active one by itself."""

    @staticmethod
    def forward(ctx, predictions, activated, coefficients):
        innovation = activated - predictions[:, 0]
        ctx.save_for_backward(innovation, coefficients)
        corrected = torch.baddbmm(predictions, coefficients[:, :, None], innovation[:, None, :])
        return corrected, corrected[:, 0].contiguous()

    @staticmethod
    def backward(ctx, grad, grad_active):
        innovation, coefficients = ctx.saved_tensors
        grad = grad.clone()
        grad[:, 0] += grad_active
        grad_innovation = torch.bmm(coefficients[:, None, :], grad)[:, 0]
        grad_coefficients = torch.bmm(grad, innovation[:, :, None])[:, :, 0]
        grad[:, 0] -= grad_innovation
        return grad, grad_innovation, grad_coefficients


class AddToPassive(torch.autograd.Function):
    """Adds [n, d] to all streams [n, 4, d] but the active one."""

    @staticmethod
    def forward(ctx, streams, added):
        streams = streams.clone()
        streams[:, 1:] += added[:, None]
        return streams

    @staticmethod
    def backward(ctx, grad):
        return grad, grad[:, 1:].sum(1)


def text_layer(self, hidden_states, position_embeddings=None, per_layer_input=None, **kwargs):
    """Gemma3nTextDecoderLayer.forward, with streams that lie side by side in memory."""
    count, batch, length, width = hidden_states.shape
    altup = self.altup
    streams = hidden_states.permute(1, 2, 0, 3).reshape(-1, count, width)
    routed = altup.compute_router_modalities(streams[:, 0])
    coefficients = altup.prediction_coefs(routed).view(-1, count, count)
    predictions, active = Predict.apply(streams, coefficients)
    normed = self.input_layernorm(active)
    laurel = self.laurel(normed)
    attention, _ = self.self_attn(
        hidden_states=normed.view(batch, length, width), position_embeddings=position_embeddings, **kwargs)
    attention = self.post_attention_layernorm(attention).view(-1, width)
    x = (active + attention + laurel) * 2**-0.5
    x = x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
    coefficients = altup.correction_coefs(altup.compute_router_modalities(x)) + 1.0
    corrected, first = Correct.apply(predictions, x, coefficients)
    gate = self.act_fn(self.per_layer_input_gate(altup.scale_corrected_output(first)))
    gate = gate * per_layer_input.reshape(-1, gate.shape[-1])
    added = self.post_per_layer_input_norm(self.per_layer_projection(gate))
    return AddToPassive.apply(corrected, added).view(batch, length, count, width).permute(2, 0, 1, 3)


def use():
    """From now on in this process."""
    nested.layer_forward = text_layer
    reference.Gemma3nRMSNorm.forward = text_norm
    reference.Gemma3nAudioSSCPConvBlock.forward = convolution
    RmsNorm2d.forward, RmsNormAct2d.forward = picture_norm, picture_norm_and_act
