"""The second look: a small classifier of the last word's sound, asked where the network tells a digit.

    python3 training/second.py make  --pool pool.npz --teacher teacher.pt --first model.bin --out looks --looks 60000
    python3 training/second.py train --looks looks --out second.pt --minutes 15

`make` joins words as training does, lets the first network (a weights file) tell where it hears digits, cuts the window of
features that a look sees there, and asks the teacher what the word is, from the word's own sound alone. `train` learns
the teacher's answers (and the labels). Both go on where they stopped.
"""
import argparse
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from augment import BANKS, Corpus
from features import RATE, agc, band_powers
from segments import CLASSES, CLASS_OF, OTHER, Rows, cut

WINDOW, AHEAD = 88, 8  # frames seen, frames of them after the step that told the word
TOLD = 0.1  # a step is looked at when any word but the blank is as likely as this
SHARD = 2000


class Cell(nn.Module):
    """Inverted residual: widen, depthwise 3x3, narrow."""

    def __init__(self, inputs: int, outputs: int, wide: int, stride: tuple[int, int] = (1, 1)):
        super().__init__()
        self.widen, self.wide_norm = nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depth, self.depth_norm = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide)
        self.narrow, self.norm = nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.residual = stride == (1, 1) and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.wide_norm(self.widen(x)))
        y = F.relu(self.depth_norm(self.depth(y)))
        y = self.norm(self.narrow(y))
        return x + y if self.residual else y


class Second(nn.Module):
    """`[n][88][32]` features to logits of the ten digits, oh, and none."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(2, 32, 5, (4, 2), 2, bias=False), nn.BatchNorm2d(32)
        self.cells = nn.ModuleList([
            Cell(32, 32, 64), Cell(32, 32, 64),
            Cell(32, 48, 96, (1, 2)), Cell(48, 48, 96), Cell(48, 48, 96),
            Cell(48, 96, 144, (2, 2)), Cell(96, 96, 192), Cell(96, 96, 192), Cell(96, 96, 192),
        ])
        self.place, self.place_norm = nn.Conv2d(96, 96, (11, 4), groups=96, bias=False), nn.BatchNorm2d(96)
        self.last, self.last_norm = nn.Linear(96, 128, bias=False), nn.BatchNorm1d(128)
        self.head = nn.Linear(128, CLASSES)
        self.felt = nn.Linear(128, 640)  # the teacher's last layer: helps training, not exported

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.both(x)[0]

    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # As it is, and what differs from the window's mean: the line's colour goes.
        x = torch.stack([x - x.mean((1, 2), keepdim=True), x - x.mean(1, keepdim=True)], 1)
        x = F.relu(self.stem_norm(self.stem(x.contiguous(memory_format=torch.channels_last))))
        for cell in self.cells:
            x = cell(x)
        x = self.place_norm(self.place(x))[:, :, 0, 0]
        x = F.relu(self.last_norm(self.last(x)))
        return self.head(F.dropout(x, 0.15, self.training)), self.felt(x)


def window(features: np.ndarray, step: int) -> np.ndarray:
    """What a look after output `step` sees of `[frames][32]`; before the start and after the end is zero."""
    end = 4 * step + 4 + AHEAD
    out = np.zeros((WINDOW, features.shape[1]), np.float32)
    part = features[max(0, end - WINDOW) : end]
    first = max(0, WINDOW - end)
    out[first : first + len(part)] = part
    return out


def looks_of(rows: Rows, rng: np.random.Generator, first: nn.Module, n: int, seconds: float) -> tuple[list, list, list]:
    """Windows, classes, and the same windows as sound, of `n` rows."""
    samples = int(seconds * RATE)
    made = [rows.row(samples + 120) for _ in range(n)]
    waves = np.zeros((n, samples + 120), np.float32)
    for wave, row in zip(waves, made):
        wave[: len(row.wave)] = row.wave[: samples + 120]
    warps = BANKS[np.clip(np.round(rng.normal(6, 1.7, n)), 0, 12).astype(int)]
    start = np.where(rng.random(n) < 0.4, rng.uniform(-5, 2, n), -5).astype(np.float32)
    x = agc(band_powers(waves, warps), start)
    with torch.no_grad():
        told = 1 - first(torch.from_numpy(x))[0][..., 0].exp().numpy()
    windows, classes, sounds = [], [], []
    for wave, row, features, likely in zip(waves, made, x, told):
        steps = {u for u in np.flatnonzero(likely > TOLD) if likely[u] >= likely[max(0, u - 1) : u + 2].max() or rng.random() < 0.25}
        for start_, end, _ in row.spans:
            if likely[max(0, (start_ + end) // 640) : (end + 1600) // 320 + 1].max(initial=0) < TOLD:
                steps.add((end + int(rng.uniform(0, 0.12) * RATE) - 440) // 320)
        for step in sorted(steps):
            if not 0 <= step < len(likely):
                continue
            heard = 320 * step + 440
            over = [symbol for begin, end, symbol in row.spans if (begin + end) // 2 <= heard <= end + 2240]
            windows.append(window(features, step).astype(np.float16))
            classes.append(CLASS_OF.get(over[-1], OTHER) if over else OTHER)
            stop = heard + AHEAD * 80
            sounds.append(cut(wave, stop - WINDOW * 80 - 120, stop, rng))
    return windows, classes, sounds


def make(args: argparse.Namespace) -> None:
    from reload import reload
    from teacher import Teacher, log_mel

    os.makedirs(args.out, exist_ok=True)
    have = len(os.listdir(args.out))
    first, teacher = reload(args.first), Teacher()
    teacher.read(args.teacher)
    teacher.eval().to(memory_format=torch.channels_last)
    rows, rng = Rows(Corpus(args.pool), 900 + have + args.seed), np.random.default_rng(900 + have + args.seed)
    while have * SHARD < args.looks:
        windows, classes, embedded = [], [], []
        while len(windows) < SHARD:
            w, c, s = looks_of(rows, rng, first, 16, 5.12)
            with torch.no_grad():
                for k in range(0, len(s), 64):
                    x = log_mel(torch.from_numpy(np.stack(s[k : k + 64]))).contiguous(memory_format=torch.channels_last)
                    embedded.append(teacher.embed(x).numpy().astype(np.float16))
            windows += w
            classes += c
        np.savez(os.path.join(args.out, f"{have:04}.npz"), x=np.stack(windows), y=np.array(classes, np.int8), e=np.concatenate(embedded))
        have += 1
        print(have, flush=True)


def shards(folder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All looks: windows, classes, and what the teacher makes of them."""
    parts = [np.load(os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if name.endswith(".npz")]
    return tuple(np.concatenate([part[key] for part in parts]) for key in ("x", "y", "e"))


def probed(e: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What a linear reading of the teacher's last layer says of each look: our classes, softly."""
    probe = nn.Linear(e.shape[1], CLASSES)
    nn.init.zeros_(probe.weight)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=0.01)
    for _ in range(15):
        for pick in torch.randperm(len(y)).split(256):
            loss = F.cross_entropy(probe(e[pick]), y[pick], label_smoothing=0.05)
            optimizer.zero_grad(), loss.backward(), optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.85
    return probe(e).detach()


def masked(x: torch.Tensor) -> torch.Tensor:
    """A band and a time hidden; moved by up to a band and two frames; louder or fainter."""
    n, frames, bands = x.shape
    x = x + 0.15 * torch.randn(n, 1, 1) + 0.05 * torch.randn(n, 1, bands)
    for _ in range(2):
        width, start = torch.randint(0, 6, (n, 1)), torch.randint(0, bands, (n, 1))
        band = torch.arange(bands)[None]
        x = x.masked_fill(((band >= start) & (band < start + width))[:, None], 0.2)
    width, start = torch.randint(0, 9, (n, 1)), torch.randint(0, frames, (n, 1))
    tick = torch.arange(frames)[None]
    x = x.masked_fill(((tick >= start) & (tick < start + width))[:, :, None], 0.2)
    return torch.roll(x, int(torch.randint(-1, 2, ())), 2) if torch.rand(()) < 0.3 else x


def load(path: str) -> Second:
    net = Second()
    net.load_state_dict(torch.load(path, weights_only=False)["mean"])
    return net.eval()


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    net, mean, state = Second().to(memory_format=torch.channels_last), Second(), {"step": 0, "cpu": 0.0}
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.rate, weight_decay=0.03)
    if os.path.exists(args.out):
        saved = torch.load(args.out, weights_only=False)
        net.load_state_dict(saved["net"]), mean.load_state_dict(saved["mean"]), optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
    elif args.start:
        net.load_state_dict(torch.load(args.start, weights_only=False)["mean"])
        mean.load_state_dict(net.state_dict())
    x, y, e = shards(args.looks)
    labels, embedded = torch.from_numpy(y.astype(np.int64)), torch.from_numpy(e.astype(np.float32))
    embedded = (embedded - embedded.mean(0)) / (embedded.std(0) + 1e-3)
    soft = F.softmax(probed(embedded, labels) / args.heat, -1)
    embedded = embedded.clamp(-4, 4)
    began, losses, said = time.process_time() - state["cpu"], [], time.time()

    def save() -> None:
        state["cpu"] = time.process_time() - began
        torch.save({"net": net.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict(), "state": state}, args.out + ".new")
        os.replace(args.out + ".new", args.out)

    while (part := (time.process_time() - began) / 60 / args.minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1, (state["step"] + 1) / 100) * (0.5 * (1 + np.cos(np.pi * part)) + 0.01)
        net.train()
        pick = rng.integers(len(y), size=128)
        a, target = masked(torch.from_numpy(x[pick].astype(np.float32))), F.one_hot(labels[pick], CLASSES).float()
        target = target if args.hard else 0.5 * target + 0.5 * soft[pick]
        mix, other = float(rng.beta(0.4, 0.4)) if rng.random() < args.mix else 1.0, torch.randperm(len(a))
        logits, felt = net.both(mix * a + (1 - mix) * a[other])
        target = mix * target + (1 - mix) * target[other]
        loss = -(target * F.log_softmax(logits, -1)).sum(-1).mean()
        if not args.hard and mix == 1.0:
            loss = loss + 0.7 * F.mse_loss(felt, embedded[pick])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        with torch.no_grad():
            keep = min(0.995, (state["step"] + 1) / (state["step"] + 20))
            for p, q in zip(mean.state_dict().values(), net.state_dict().values()):
                p.lerp_(q, 1 - keep) if p.dtype.is_floating_point else p.copy_(q)
        losses.append(loss.item())
        state["step"] += 1
        if time.time() - said > 60:
            save()
            print(f"{state['cpu'] / 60:.1f} CPU minutes, step {state['step']}, loss {np.mean(losses):.3f}, {len(y)} looks", flush=True)
            said, losses = time.time(), []
    save()


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = ap.add_subparsers(dest="task", required=True)
    m, t = tasks.add_parser("make"), tasks.add_parser("train")
    for name in ("pool", "teacher", "first", "out"):
        m.add_argument(f"--{name}", required=True)
    m.add_argument("--looks", type=int, default=60000)
    m.add_argument("--seed", type=int, default=0)
    for name in ("looks", "out"):
        t.add_argument(f"--{name}", required=True)
    t.add_argument("--minutes", type=float, default=15)
    t.add_argument("--rate", type=float, default=2e-3)
    t.add_argument("--heat", type=float, default=1.5, help="softens what the teacher says")
    t.add_argument("--mix", type=float, default=0.5, help="part of the batches whose windows are mixed")
    t.add_argument("--hard", action="store_true", help="labels only, no teacher: to see what the teacher gives")
    t.add_argument("--seed", type=int, default=1)
    t.add_argument("--start", help="weights to begin with")
    args = ap.parse_args()
    torch.set_num_threads(1)
    make(args) if args.task == "make" else train(args)


if __name__ == "__main__":
    main()
