"""Writes the weights file of FEATURES.md, and the vectors that prove the Rust side equal.

    python3 training/export.py --model run/last.pt [--weights src/speech/digits/model.bin] [--vectors tests/vectors/speech]

Normalisation is folded into the weights, which are rounded to 8 bits a row. The vectors are made by running the file's
own layer list, not the training network; both must agree but for the rounding, and the difference is printed.
"""
import argparse
import hashlib
import os
import struct

import numpy as np
import torch
from torch import nn

import augment
import model as shape
import train
from evaluate import load
from features import agc, band_powers, bank, features
from model import DIGITS, DILATIONS, KERNEL, MEAN_AFTER, MEAN_RATE, WORDS, Net
from reload import reload

CONV, DEPTHWISE, PUSH, ADD, EMA, HEAD = range(1, 7)
TRACTS = {"long": 0.92, "short": 1.08}  # the other vocal tracts that the recognizer listens for
Layer = dict


def folded(weight: torch.Tensor, norm: nn.BatchNorm1d) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias that do what the weight and its normalisation do together."""
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    scaled = weight * gain.view(-1, *[1] * (weight.dim() - 1))
    return scaled.detach().numpy(), (norm.bias - norm.running_mean * gain).detach().numpy()


def layers_of(net: Net) -> list[Layer]:
    """The network as FEATURES.md's list of layers, in f32."""

    def dense(weight: np.ndarray, bias: np.ndarray, relu: bool, stride: int = 1) -> Layer:
        return {"op": CONV, "relu": relu, "stride": stride, "dilation": 1, "w": weight if weight.ndim == 3 else weight[:, :, None], "b": bias}

    def plain(linear: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
        return linear.weight.detach().numpy(), linear.bias.detach().numpy()

    out = [dense(*folded(s.conv.weight, s.norm), True, 2) for s in (net.first, net.second)]
    for i, block in enumerate(net.blocks):
        weight, bias = folded(block.depthwise.weight[:, 0], block.depth_norm)
        out += [{"op": PUSH}, {"op": DEPTHWISE, "relu": False, "dilation": DILATIONS[i], "w": weight, "b": bias}]
        out += [dense(*folded(block.widen.weight, block.wide_norm), True), dense(*plain(block.narrow), False), {"op": ADD}]
        if i + 1 == MEAN_AFTER:
            out += [{"op": PUSH}, {"op": EMA, "rate": MEAN_RATE, "channels": shape.WIDTH}, dense(*plain(net.mean.mix), False), {"op": ADD}]
    out.append(dense(*folded(net.last.weight, net.last_norm), True))
    for name, symbols, linear in (("digits", DIGITS, net.digits), ("words", WORDS, net.words)):
        weight, bias = plain(linear)
        out.append({"op": HEAD, "name": name, "symbols": symbols, "w": weight, "b": bias})
    return out


def quantized(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale a row (f32) and i8 values."""
    rows = weight.reshape(len(weight), -1)
    scale = np.maximum(np.abs(rows).max(1) / 127, 1e-12).astype(np.float32)
    return scale, np.round(rows / scale[:, None]).astype(np.int8)


def text(s: str) -> bytes:
    return struct.pack("<B", len(s.encode())) + s.encode()


def packed(layer: Layer) -> bytes:
    """One layer's bytes; leaves the rounded weights in the layer."""
    head = struct.pack("<BB", layer["op"], int(layer.get("relu", False)))
    if layer["op"] in (PUSH, ADD):
        return head
    if layer["op"] == EMA:
        return head + struct.pack("<Hf", layer["channels"], layer["rate"])
    w = layer["w"]
    if layer["op"] == CONV:
        head += struct.pack("<5H", w.shape[1], w.shape[0], w.shape[2], layer["dilation"], layer["stride"])
    elif layer["op"] == DEPTHWISE:
        head += struct.pack("<3H", w.shape[0], w.shape[1], layer["dilation"])
    else:
        head += struct.pack("<2H", w.shape[1], w.shape[0]) + text(layer["name"]) + b"".join(map(text, layer["symbols"]))
    scale, q = quantized(w)
    layer["w"] = (q * scale[:, None]).reshape(w.shape).astype(np.float32)
    return head + scale.tobytes() + q.tobytes() + layer["b"].astype("<f4").tobytes()


def run(layers: list[Layer], x: np.ndarray) -> dict[str, np.ndarray]:
    """The heads' log-posteriors for features `[frames][bands]`, layer by layer."""
    saved, heads = x, {}
    for layer in layers:
        op = layer["op"]
        if op == PUSH:
            saved = x
        elif op == ADD:
            x = x + saved
        elif op == EMA:
            s, y = np.zeros(x.shape[1], np.float32), np.empty_like(x)
            for t, frame in enumerate(x):
                s = s + np.float32(layer["rate"]) * (frame - s)
                y[t] = s
            x = y
        elif op == HEAD:
            z = x @ layer["w"].T + layer["b"]
            z = z - z.max(-1, keepdims=True)
            heads[layer["name"]] = (z - np.log(np.exp(z).sum(-1, keepdims=True))).astype(np.float32)
        else:
            w, taps = layer["w"], layer["w"].shape[-1]
            reach = (taps - 1) * layer["dilation"]
            padded = np.pad(x, ((reach, 0), (0, 0)))
            y = layer["b"] + sum(
                padded[j * layer["dilation"] :][: len(x)] @ w[:, :, j].T if op == CONV else padded[j * layer["dilation"] :][: len(x)] * w[:, j] for j in range(taps)
            )
            y = y[layer.get("stride", 1) - 1 :: layer.get("stride", 1)]
            x = np.maximum(y, 0) if layer["relu"] else y
    return heads


def sample() -> np.ndarray:
    """Three seconds by formula: gliding vowels in bursts over a hiss from a small generator; i16."""
    t = np.arange(24000) / 8000
    phase = 2 * np.pi * np.cumsum(110 + 30 * np.sin(2 * np.pi * 0.7 * t)) / 8000
    x = sum(np.exp(-(((k * 115 - 500 - 350 * np.sin(2 * np.pi * 1.3 * t)) / 300) ** 2)) * np.sin(k * phase) for k in range(1, 28))
    x *= (np.sin(2 * np.pi * 2.1 * t) > -0.2) * 0.2
    seed, hiss = 12345, np.empty(24000)
    for i in range(24000):
        seed = (1103515245 * seed + 12345) % 2**31
        hiss[i] = seed / 2**30 - 1
    return np.round(np.clip(x + 0.004 * hiss, -1, 1) * 32767).astype(np.int16)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--weights", default="src/speech/digits/model.bin")
    ap.add_argument("--vectors", default="tests/vectors/speech")
    args = ap.parse_args()
    net = reload(args.model) if args.model.endswith(".bin") else load(args.model)
    layers = layers_of(net)
    sources = b"".join(open(m.__file__, "rb").read() for m in (shape, augment, train))
    body = b"RTDIGIT1" + struct.pack("<I", 1) + hashlib.sha256(sources).digest() + struct.pack("<2H", shape.BANDS, len(layers))
    body += b"".join(map(packed, layers))
    body += hashlib.sha256(body).digest()
    for folder in (os.path.dirname(args.weights), args.vectors):
        os.makedirs(folder, exist_ok=True)
    with open(args.weights, "wb") as f:
        f.write(body)
    wave = sample()
    x = features(wave)
    heads = run(layers, x)
    warped = {name: agc(band_powers(wave[None].astype(np.float32) / 32768, bank(w)))[0] for name, w in TRACTS.items()}
    arrays = {"wave.i16": wave, "features.f32": x, **{f"{k}.f32": v for k, v in warped.items()}, **{f"{k}.f32": v for k, v in heads.items()}}
    for name, array in arrays.items():
        array.tofile(os.path.join(args.vectors, name))
    with torch.no_grad():
        digits, _, _ = net(torch.from_numpy(x)[None])
    print(len(body), "bytes,", len(layers), "layers; rounding moved a posterior by at most", float(np.abs(np.exp(digits[0].numpy()) - np.exp(heads["digits"])).max()))


if __name__ == "__main__":
    main()
