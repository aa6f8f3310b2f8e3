"""Reads a weights file of FEATURES.md back into the training network: weights that no checkpoint is left of."""
import struct

import numpy as np
import torch
from torch import nn

from model import Net

CONV, DEPTHWISE, PUSH, ADD, EMA, HEAD = range(1, 7)


def tensors(path: str) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Operation, weight and bias of each layer that has them, in the file's order."""
    data = open(path, "rb").read()
    at, out = 8 + 4 + 32, []

    def take(form: str) -> tuple:
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values

    def floats(n: int) -> np.ndarray:
        return np.array(take(f"{n}f"), np.float32)

    def weights(rows: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        nonlocal at
        scale, n = floats(rows), int(np.prod(shape))
        q = np.frombuffer(data, np.int8, n, at).reshape(rows, -1).astype(np.float32)
        at += n
        return (q * scale[:, None]).reshape(shape), floats(rows)

    _, layers = take("2H")
    for _ in range(layers):
        op, _ = take("2B")
        if op == CONV:
            inputs, outputs, kernel, _, _ = take("5H")
            out.append((op, *weights(outputs, (outputs, inputs, kernel))))
        elif op == DEPTHWISE:
            channels, kernel, _ = take("3H")
            out.append((op, *weights(channels, (channels, kernel))))
        elif op == EMA:
            take("Hf")
        elif op == HEAD:
            inputs, symbols = take("2H")
            for _ in range(symbols + 1):
                at += 1 + data[at]
            out.append((op, *weights(symbols, (symbols, inputs))))
    return out


def unfold(norm: nn.BatchNorm1d, bias: np.ndarray) -> None:
    """A normalisation that only adds this bias."""
    norm.weight.data.fill_(1.0), norm.running_mean.zero_(), norm.running_var.fill_(1.0 - norm.eps)
    norm.bias.data.copy_(torch.from_numpy(bias))


def reload(path: str) -> Net:
    net, layers = Net(), iter(tensors(path))

    def dense(linear: nn.Linear) -> None:
        _, weight, bias = next(layers)
        linear.weight.data.copy_(torch.from_numpy(weight.reshape(linear.weight.shape)))
        linear.bias.data.copy_(torch.from_numpy(bias))

    def normed(weight: torch.Tensor, norm: nn.BatchNorm1d) -> None:
        _, values, bias = next(layers)
        weight.data.copy_(torch.from_numpy(values.reshape(weight.shape)))
        unfold(norm, bias)

    for strided in (net.first, net.second):
        normed(strided.conv.weight, strided.norm)
    for i, block in enumerate(net.blocks):
        normed(block.depthwise.weight, block.depth_norm)
        normed(block.widen.weight, block.wide_norm)
        dense(block.narrow)
        if i == 1:
            dense(net.mean.mix)
    normed(net.last.weight, net.last_norm)
    dense(net.digits)
    dense(net.words)
    return net.eval()
