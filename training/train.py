"""Trains the built-in model, unattended and resumable.

    python3 training/train.py --pool pool.npz --out run/ [--hours 2] [--dev PACK]

Two processes: one makes batches ahead into a bounded queue, one trains. Making a batch costs as much as training on it
does, so each is seen about TIMES_SEEN times, masked anew. Every few minutes: run/last.pt, and a line in run/curve.csv.
Started again with the same --out it goes on from run/last.pt; --hours counts the whole run's time.
"""
import argparse
import copy
import csv
import math
import multiprocessing as mp
import os
import time

import numpy as np
import torch
import torch.nn.functional as F

from augment import Batch, Corpus, Maker
from model import Net

PEAK_RATE, WARMUP_STEPS, DECAY = 2e-3, 200, 0.3  # the last DECAY of the time the rate falls to 2 %
KEPT_BATCHES, TIMES_SEEN = 60, 3
SAVE_EVERY, MEAN_DECAY = 120.0, 0.998
WORDS_SHARE, SPANS_SHARE = 0.35, 1.0


def make(pool: str, seed: int, out: "mp.Queue[Batch]") -> None:
    """Fills the queue for ever."""
    os.nice(2)
    maker = Maker(Corpus(pool), seed)
    while True:
        out.put(maker.batch())


def masked(features: torch.Tensor) -> torch.Tensor:
    """SpecAugment: two bands and a few short times become the line's floor."""
    x = features.clone()
    rows, frames, bands = x.shape
    for _ in range(2):
        width, start = torch.randint(0, 6, (rows, 1)), torch.randint(0, bands, (rows, 1))
        band = torch.arange(bands)[None]
        x = x.masked_fill(((band >= start) & (band < start + width))[:, None], 0.2)
    times = max(1, frames // 250)
    for _ in range(times):
        width, start = torch.randint(0, 9, (rows, 1)), torch.randint(0, frames, (rows, 1))
        time_ = torch.arange(frames)[None]
        x = x.masked_fill(((time_ >= start) & (time_ < start + width))[:, :, None], 0.2)
    return x


def ctc(log_probs: torch.Tensor, targets: list[list[int] | None]) -> torch.Tensor:
    """Mean CTC loss per row over the rows whose target is known."""
    rows = [i for i, t in enumerate(targets) if t is not None]
    flat = torch.tensor([s for i in rows for s in targets[i]], dtype=torch.long)
    lengths = torch.tensor([len(targets[i]) for i in rows])
    steps = torch.full((len(rows),), log_probs.shape[1])
    loss = F.ctc_loss(log_probs[rows].transpose(0, 1), flat, steps, lengths, reduction="none", zero_infinity=True)
    return (loss / lengths.clamp(min=1).sqrt()).mean()


# Without these instructions bf16 is emulated, seven times as slow as f32.
HAS_BF16 = any(word in open("/proc/cpuinfo").read() for word in ("avx512_bf16", "amx_bf16")) if os.path.exists("/proc/cpuinfo") else False


def loss_of(net: Net, batch: Batch) -> torch.Tensor:
    x = torch.from_numpy(batch.features)
    with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BF16):
        digits, words, spans = net(masked(x))
    span_loss = F.cross_entropy(spans.flatten(0, 1), torch.from_numpy(batch.spans).flatten(), ignore_index=-1)
    return ctc(digits, batch.digits) + WORDS_SHARE * ctc(words, batch.words) + SPANS_SHARE * span_loss


def rate_at(step: int, part: float) -> float:
    """Learning rate after `part` of the planned time."""
    fall = 1.0 if part < 1 - DECAY else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, (part - 1 + DECAY) / DECAY)))
    return PEAK_RATE * min(1, (step + 1) / WARMUP_STEPS) * fall


def average(mean: Net, net: Net, step: int) -> None:
    """Exponential mean of the weights (and of the normalisations' statistics)."""
    keep = min(MEAN_DECAY, (step + 1) / (step + 20))
    with torch.no_grad():
        for a, b in zip(mean.state_dict().values(), net.state_dict().values()):
            a.lerp_(b, 1 - keep) if a.dtype.is_floating_point else a.copy_(b)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--pool", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--hours", type=float, default=2.0)
    ap.add_argument("--dev", help="pack of devset.py, scored at each save")
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    torch.set_num_threads(1)
    os.makedirs(args.out, exist_ok=True)
    net = Net()
    mean, optimizer = copy.deepcopy(net), torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=0.02, betas=(0.9, 0.98))
    state = {"step": 0, "wall": 0.0, "cpu": 0.0}
    last = os.path.join(args.out, "last.pt")
    if os.path.exists(last):
        saved = torch.load(last, weights_only=False)
        net.load_state_dict(saved["net"]), mean.load_state_dict(saved["mean"]), optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
    batches: "mp.Queue[Batch]" = mp.Queue(4)
    mp.Process(target=make, args=(args.pool, args.seed * 1000 + state["step"], batches), daemon=True).start()
    kept: list[Batch] = []
    rng = np.random.default_rng(args.seed)

    def save() -> None:
        state["wall"], state["cpu"] = time.time() - began, time.process_time() - cpu_began
        torch.save({"net": net.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict(), "state": state}, last + ".new")
        os.replace(last + ".new", last)

    began, cpu_began, saved_at, losses = time.time() - state["wall"], time.process_time() - state["cpu"], time.time(), []
    while (part := (time.time() - began) / 3600 / args.hours) < 1:
        if state["step"] % TIMES_SEEN == 0 or not kept:
            batch = batches.get()
            kept = [*kept[-KEPT_BATCHES:], batch]
        else:
            batch = kept[rng.integers(len(kept))]
        for group in optimizer.param_groups:
            group["lr"] = rate_at(state["step"], part)
        net.train()
        loss = loss_of(net, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        average(mean, net, state["step"])
        losses.append(loss.item())
        state["step"] += 1
        if time.time() - saved_at > SAVE_EVERY:
            save()
            log(args, mean, state, float(np.mean(losses)))
            saved_at, losses = time.time(), []
    save()


def log(args: argparse.Namespace, mean: Net, state: dict, loss: float) -> None:
    """One line of the curve."""
    row = {"minutes": round(state["wall"] / 60, 1), "cpu_minutes": round(state["cpu"] / 60, 1), "step": state["step"], "loss": round(loss, 3)}
    if args.dev:
        from evaluate import quick

        row |= quick(mean, args.dev)
    path = os.path.join(args.out, "curve.csv")
    new = not os.path.exists(path)
    with open(path, "a", newline="") as f:
        rows = csv.DictWriter(f, row)
        if new:
            rows.writeheader()
        rows.writerow(row)


if __name__ == "__main__":
    main()
