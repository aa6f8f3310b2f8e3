"""The teacher: SpellingCNN's weights out of its ONNX file, fine-tuned for telephone digits. Never committed nor shipped.

    python3 training/teacher.py --onnx ../shared/data/speech-teacher/spelling_cnn_mel.onnx --pool pool.npz --out teacher.pt --minutes 8

It names one segment: a word cut out of its surroundings, 1 s at most. What it says of every training segment is what
`second.py` learns. Started again it goes on from --out; --minutes counts the whole run's CPU time.
"""
import argparse
import multiprocessing as mp
import os
import time

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn

from segments import CLASSES, Corpus, Rows, of_row

SECOND, BANDS, FRAMES, FFT = 8000, 64, 128, 256
FILE_CLASSES = {14: 10, **{26 + d: d for d in range(10)}}  # the file's 51 classes that are ours: "o" and the digits
HEARD = 50  # bands below 4 kHz; the rest is guessed


def slaney(points: int, low: float, high: float) -> np.ndarray:
    """Edges in Hz, equally spaced on Slaney's mel scale."""
    step = np.log(6.4) / 27
    mel = lambda f: f / (200 / 3) if f < 1000 else 15 + np.log(f / 1000) / step
    mels = np.linspace(mel(low), mel(high), points)
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))


def filters() -> np.ndarray:
    """`[129][50]`: the file's triangles (of 64 up to 8 kHz) that lie below 4 kHz, area one."""
    edges, f = slaney(BANDS + 2, 20, 8000), np.arange(FFT // 2 + 1)[:, None] * 31.25
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    bank = np.maximum(0, np.minimum((f - left) / (middle - left), (right - f) / (right - middle))) * 2 / (right - left)
    return bank[:, :HEARD].astype(np.float32)


ANGLES = 2 * np.pi / FFT * np.arange(FFT)[:, None] * np.arange(FFT // 2 + 1)
HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
FOURIER = torch.from_numpy((HANN[:, None] * np.concatenate([np.cos(ANGLES), np.sin(ANGLES)], 1)).astype(np.float32))
FILTERS = torch.from_numpy(filters())
STARTS = torch.from_numpy(np.round(np.arange(FRAMES) * 62.5).astype(np.int64))


def log_mel(seconds: torch.Tensor) -> torch.Tensor:
    """`[n][8000]` to `[n][1][64][128]`, each normalised; above 4 kHz a guess: the band below, fainter."""
    padded = F.pad(seconds[:, None], (FFT // 2, FFT // 2), mode="reflect")[:, 0]
    frames = padded.unfold(1, FFT, 1)[:, STARTS]
    z = frames @ FOURIER
    power = z[..., : FFT // 2 + 1] ** 2 + z[..., FFT // 2 + 1 :] ** 2
    x = torch.log(power @ FILTERS + 1e-6)
    x = (x - x.mean((1, 2), keepdim=True)) / x.std((1, 2), keepdim=True).clamp(min=1e-3)
    top = x[..., -4:].mean(-1, keepdim=True) - 0.5
    return torch.cat([x, top.expand(-1, -1, BANDS - HEARD)], -1).transpose(1, 2)[:, None]


class Teacher(nn.Module):
    """The file's convolutions in order; a residual block adds where shapes allow, as MobileNetV2 does."""

    STAGES = [(1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 3, 2), (4, 64, 3, 2), (4, 96, 2, 1), (4, 160, 2, 2), (4, 240, 1, 1)]

    def __init__(self):
        super().__init__()
        convs, adds, width = [nn.Conv2d(1, 32, 3, 2, 1)], [], 32
        self.steps: list[tuple[int, int, bool]] = []  # first conv, convs, residual
        for stage, (expand, out, repeats, _) in enumerate(self.STAGES):
            for r in range(repeats):
                stride = 2 if r == 0 and stage in (1, 2, 3, 5) else 1
                inner, first = width * expand, len(convs)
                if expand > 1:
                    convs.append(nn.Conv2d(width, inner, 1))
                convs += [nn.Conv2d(inner, inner, 3, stride, 1, groups=inner), nn.Conv2d(inner, out, 1)]
                self.steps.append((first, len(convs) - first, stride == 1 and width == out))
                width = out
        convs.append(nn.Conv2d(width, 640, 1))
        self.convs = nn.ModuleList(convs)
        self.classifier = nn.Linear(640, 51)

    def read(self, path: str) -> None:
        """Takes the file's weights."""
        tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer}
        names = sorted((n for n in tensors if "Conv" in n), key=lambda n: int(n.split("_")[-1]))
        for conv, weight, bias in zip(self.convs, names[::2], names[1::2], strict=True):
            conv.weight.data, conv.bias.data = tensors[weight], tensors[bias]
        self.classifier.weight.data, self.classifier.bias.data = tensors["classifier.1.weight"], tensors["classifier.1.bias"]

    def narrow(self) -> None:
        """Our classes instead of the file's."""
        head = nn.Linear(640, CLASSES)
        with torch.no_grad():
            head.weight.zero_(), head.bias.zero_()
            for theirs, ours in FILE_CLASSES.items():
                head.weight[ours], head.bias[ours] = self.classifier.weight[theirs], self.classifier.bias[theirs]
        self.classifier = head

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.convs[0](F.pad(x, (0, 1, 0, 1))))
        for first, n, residual in self.steps:
            y = x
            for i in range(first, first + n):
                y = self.convs[i](y)
                y = F.relu6(y) if i < first + n - 1 else y
            x = x + y if residual else y
        return F.relu6(self.convs[-1](x)).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.dropout(self.embed(x), 0.2, self.training))


def batches(pool: str, seed: int, out: "mp.Queue[tuple[np.ndarray, np.ndarray]]", size: int = 64) -> None:
    """Segments and classes, for ever, each out of its own row."""
    rng, rows, kept = np.random.default_rng(seed), Rows(Corpus(pool), seed), []
    while True:
        while len(kept) < 16 * size:
            kept += of_row(rows.row(5 * SECOND), rng)
        rng.shuffle(kept)
        some, kept = kept[:size], kept[size:]
        out.put((np.stack([x for x, _, _ in some]), np.array([y for _, y, _ in some])))


def load(path: str) -> Teacher:
    teacher = Teacher()
    teacher.narrow()
    teacher.load_state_dict(torch.load(path, weights_only=False)["mean"])
    return teacher.eval().to(memory_format=torch.channels_last)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("onnx", "pool", "out"):
        ap.add_argument(f"--{name}", required=True)
    ap.add_argument("--minutes", type=float, default=8)
    ap.add_argument("--rate", type=float, default=5e-4)
    args = ap.parse_args()
    torch.set_num_threads(1)
    teacher, mean, state = Teacher(), Teacher(), {"step": 0, "cpu": 0.0}
    for t in (teacher, mean):
        t.read(args.onnx), t.narrow(), t.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=args.rate, weight_decay=0.01)
    if os.path.exists(args.out):
        saved = torch.load(args.out, weights_only=False)
        teacher.load_state_dict(saved["net"]), mean.load_state_dict(saved["mean"]), optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
    queue: "mp.Queue[tuple[np.ndarray, np.ndarray]]" = mp.Queue(8)
    mp.Process(target=batches, args=(args.pool, 77 + state["step"], queue), daemon=True).start()
    cpu_began, losses, said = time.process_time() - state["cpu"], [], time.time()
    while (part := (time.process_time() - cpu_began) / 60 / args.minutes) < 1:
        x, y = queue.get()
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1, (state["step"] + 1) / 50) * 0.5 * (1 + np.cos(np.pi * part))
        teacher.train()
        features = log_mel(torch.from_numpy(x))
        band, tick = np.random.randint(0, 44), np.random.randint(0, 100)
        features[:, :, band : band + np.random.randint(0, 8)] = 0
        features[:, :, :, tick : tick + np.random.randint(0, 14)] = 0
        loss = F.cross_entropy(teacher(features.contiguous(memory_format=torch.channels_last)), torch.from_numpy(y), label_smoothing=0.03)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(teacher.parameters(), 2.0)
        optimizer.step()
        with torch.no_grad():
            keep = min(0.99, (state["step"] + 1) / (state["step"] + 10))
            for a, b in zip(mean.parameters(), teacher.parameters()):
                a.lerp_(b, 1 - keep)
        losses.append(loss.item())
        state["step"] += 1
        if time.time() - said > 60 or part > 0.999:
            state["cpu"] = time.process_time() - cpu_began
            torch.save({"net": teacher.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict(), "state": state}, args.out)
            print(f"{state['cpu'] / 60:.1f} CPU minutes, step {state['step']}, loss {np.mean(losses):.3f}", flush=True)
            said, losses = time.time(), []
    state["cpu"] = time.process_time() - cpu_began
    torch.save({"net": teacher.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict(), "state": state}, args.out)


if __name__ == "__main__":
    main()
