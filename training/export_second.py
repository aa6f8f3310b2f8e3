"""Writes the second look's weights (format: FEATURES.md) and the vectors that prove the Rust side equal.

    python3 training/export_second.py --model second.pt [--weights src/speech/digits/second.bin] [--vectors tests/vectors/speech]

The vectors are made by running the file's own layers on windows of `features.f32`, not the training network.
"""
import argparse
import hashlib
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import second as source
import segments
from export import folded, quantized, text
from features import BANDS
from second import AHEAD, WINDOW, Second, load, window
from segments import NAMES

CONV, DEPTHWISE, PUSH, ADD, HEAD = 1, 2, 3, 4, 6
STEPS = (3, 20, 37, 54, 71)  # where the vectors look
Layer = dict


def layers_of(net: Second) -> list[Layer]:
    def conv(c: nn.Conv2d, norm: nn.Module, relu: bool) -> Layer:
        weight, bias = folded(c.weight, norm)
        return {"op": DEPTHWISE if c.groups > 1 else CONV, "relu": relu, "w": weight, "b": bias, "stride": c.stride, "pad": c.padding}

    out = [conv(net.stem, net.stem_norm, True)]
    for cell in net.cells:
        parts = [conv(cell.widen, cell.wide_norm, True), conv(cell.depth, cell.depth_norm, True), conv(cell.narrow, cell.norm, False)]
        out += [{"op": PUSH}, *parts, {"op": ADD}] if cell.residual else parts
    out.append(conv(net.place, net.place_norm, False))
    weight, bias = folded(net.last.weight, net.last_norm)
    out.append({"op": CONV, "relu": True, "w": weight[:, :, None, None], "b": bias, "stride": (1, 1), "pad": (0, 0)})
    out.append({"op": HEAD, "w": net.head.weight.detach().numpy(), "b": net.head.bias.detach().numpy()})
    return out


def packed(layer: Layer) -> bytes:
    """One layer's bytes; leaves the rounded weights in the layer."""
    head, w = struct.pack("<BB", layer["op"], int(layer.get("relu", False))), layer.get("w")
    if w is None:
        return head
    if layer["op"] == HEAD:
        head += struct.pack("<2H", w.shape[1], w.shape[0]) + b"".join(map(text, [*NAMES, "<none>"]))
    else:
        sizes = (w.shape[0],) if layer["op"] == DEPTHWISE else (w.shape[1], w.shape[0])
        sizes += (*w.shape[2:], *layer["stride"], *layer["pad"])
        head += struct.pack(f"<{len(sizes)}H", *sizes)
    scale, q = quantized(w)
    layer["w"] = (q * scale[:, None]).reshape(w.shape).astype(np.float32)
    return head + scale.tobytes() + q.tobytes() + layer["b"].astype("<f4").tobytes()


def run(layers: list[Layer], x: np.ndarray) -> np.ndarray:
    """Log-posteriors for windows `[n][88][32]`, layer by layer."""
    x = torch.from_numpy(np.stack([x - x.mean((1, 2), keepdims=True), x - x.mean(1, keepdims=True)], 1))
    saved = x
    for layer in layers:
        if layer["op"] == PUSH:
            saved = x
        elif layer["op"] == ADD:
            x = x + saved
        elif layer["op"] == HEAD:
            x = F.log_softmax(F.linear(x.permute(0, 2, 3, 1).flatten(1), torch.from_numpy(layer["w"]), torch.from_numpy(layer["b"])), -1)
        else:
            groups = x.shape[1] if layer["op"] == DEPTHWISE else 1
            x = F.conv2d(x, torch.from_numpy(layer["w"]), torch.from_numpy(layer["b"]), layer["stride"], layer["pad"], groups=groups)
            x = F.relu(x) if layer["relu"] else x
    return x.numpy()


def write(net: Second, path: str) -> list[Layer]:
    layers = layers_of(net)
    sources = b"".join(open(m.__file__, "rb").read() for m in (source, segments))
    body = b"RTLOOK01" + struct.pack("<I", 1) + hashlib.sha256(sources).digest() + struct.pack("<4H", WINDOW, AHEAD, BANDS, len(layers))
    body += b"".join(map(packed, layers))
    with open(path, "wb") as f:
        f.write(body + hashlib.sha256(body).digest())
    print(path, os.path.getsize(path), "bytes,", len(layers), "layers")
    return layers


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--weights", default="src/speech/digits/second.bin")
    ap.add_argument("--vectors", default="tests/vectors/speech")
    args = ap.parse_args()
    net = load(args.model)
    layers = write(net, args.weights)
    x = np.fromfile(os.path.join(args.vectors, "features.f32"), np.float32).reshape(-1, BANDS)
    windows = np.stack([window(x, step) for step in STEPS])
    told = run(layers, windows)
    told.tofile(os.path.join(args.vectors, "looks.f32"))
    with torch.no_grad():
        exact = F.log_softmax(net(torch.from_numpy(windows)), -1).numpy()
    print("rounding moved a posterior by at most", np.abs(np.exp(exact) - np.exp(told)).max())


if __name__ == "__main__":
    main()
