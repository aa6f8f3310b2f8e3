"""Scores a checkpoint on a pack of devset.py in Python: the rows of the bars, before any confidence gate.

    python3 training/evaluate.py --model run/last.pt --pack PACK [--split val] [--blank-penalty 0.5]

Isolated digits under a forced one-digit grammar; strings greedy, and the best string that the field allows out of a
prefix beam (length, Luhn, ABA weights, month); false digits per minute on what holds none.
"""
import argparse
import csv
import os
from collections import defaultdict
from functools import lru_cache

import numpy as np
import soundfile as sf
import torch
import torch.nn.functional as F

from features import features
from model import DIGITS, WORDS, Net

LENGTHS = {"card": (15, 16), "wildcard": (15, 16), "routing": (9,), "zip": (5,), "expiry": (4,), "cvv": (3, 4), "account": tuple(range(6, 13))}
NAMES = {w: i for i, w in enumerate(DIGITS[1:11])} | {"oh": 0}
Row = dict[str, str]


def load(path: str) -> Net:
    """The averaged weights of a checkpoint."""
    net = Net()
    net.load_state_dict(torch.load(path, weights_only=False)["mean"])
    return net.eval()


@lru_cache(maxsize=2)
def pack_of(pack: str) -> list[tuple[Row, np.ndarray]]:
    with open(os.path.join(pack, "manifest.csv"), newline="") as f:
        return [(row, features(sf.read(os.path.join(pack, row["path"]), dtype="int16")[0])) for row in csv.DictReader(f)]


def posteriors(net: Net, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        digits, words, _ = net(torch.from_numpy(x)[None])
    return digits[0].numpy(), words[0].numpy()


def greedy(log_probs: np.ndarray, penalty: float = 0.0) -> list[int]:
    """Best label of each output, repeats and blanks removed."""
    best = (log_probs - penalty * (np.arange(log_probs.shape[1]) == 0)).argmax(-1)
    return [int(s) for i, s in enumerate(best) if s and (i == 0 or s != best[i - 1])]


def written(symbols: list[int]) -> str:
    """Symbols of the digits head as digits: oh is 0, double and triple repeat what follows."""
    out, times = "", 1
    for s in symbols:
        if DIGITS[s] in ("double", "triple"):
            times = 2 if DIGITS[s] == "double" else 3
        else:
            out, times = out + str(NAMES[DIGITS[s]]) * times, 1
    return out


def forced(log_probs: np.ndarray, choices: list[list[int]]) -> int:
    """Which of these label strings has the highest probability."""
    n = len(choices)
    lp = torch.from_numpy(log_probs)[:, None].expand(-1, n, -1)
    flat = torch.tensor([s for c in choices for s in c])
    lengths = torch.tensor([len(c) for c in choices])
    loss = F.ctc_loss(lp, flat, torch.full((n,), len(log_probs)), lengths, reduction="none")
    return int(loss.argmin())


def ten(log_probs: np.ndarray, penalty: float) -> np.ndarray:
    """Blank and the ten digits; oh joins zero."""
    lp = log_probs[:, :11].copy()
    lp[:, 1] = np.logaddexp(lp[:, 1], log_probs[:, 11])
    lp[:, 0] -= penalty
    return lp


def beam(lp: np.ndarray, longest: int, width: int = 64) -> list[tuple[str, float]]:
    """CTC prefix beam: digit strings and log-probabilities, best first."""
    beams = {"": (0.0, -np.inf)}
    for frame in lp:
        if frame[0] > -0.002:
            beams = {p: (np.logaddexp(*b) + frame[0], -np.inf) for p, b in beams.items()}
            continue
        new: dict[str, list[float]] = defaultdict(lambda: [-np.inf, -np.inf])
        likely = [d for d in range(10) if frame[d + 1] > -9]
        for prefix, (blank, label) in beams.items():
            both = np.logaddexp(blank, label)
            new[prefix][0] = np.logaddexp(new[prefix][0], both + frame[0])
            if prefix:
                new[prefix][1] = np.logaddexp(new[prefix][1], label + frame[int(prefix[-1]) + 1])
            if len(prefix) == longest:
                continue
            for d in likely:
                source = blank if prefix and prefix[-1] == str(d) else both
                entry = new[prefix + str(d)]
                entry[1] = np.logaddexp(entry[1], source + frame[d + 1])
        beams = dict(sorted(((p, tuple(b)) for p, b in new.items()), key=lambda e: -np.logaddexp(*e[1]))[:width])
    return sorted(((p, float(np.logaddexp(*b))) for p, b in beams.items()), key=lambda e: -e[1])


def allowed(field: str, value: str) -> bool:
    if len(value) not in LENGTHS[field]:
        return False
    if field in ("card", "wildcard"):
        amex = value[:2] in ("34", "37")
        total = sum(sum(divmod(int(c) * (1 + i % 2), 10)) for i, c in enumerate(reversed(value)))
        return total % 10 == 0 and (len(value) == 15) == amex and value[0] in "23456"
    if field == "routing":
        return sum(int(c) * w for c, w in zip(value, (3, 7, 1) * 3)) % 10 == 0
    return field != "expiry" or (1 <= int(value[:2]) <= 12 and 20 <= int(value[2:]) <= 40)


def edits(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def quick(net: Net, pack: str) -> dict[str, float]:
    """For the curve: forced digits, digit error of greedy strings, and yes/no, of both splits."""
    net.eval()
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0])
    for row, x in pack_of(pack):
        split = row["split"]
        if row["kind"] == "word" and row["text"] in NAMES:
            ok = forced(posteriors(net, x)[0], [[i] for i in range(1, 11)]) == NAMES[row["text"]]
            add(sums, f"digit_{split}", ok, 1)
        elif row["kind"] == "word":
            add(sums, f"yesno_{split}", forced(posteriors(net, x)[1], [[WORDS.index("yes")], [WORDS.index("no")]]) == (row["text"] == "no"), 1)
        elif row["kind"] in ("card", "zip", "routing"):
            text = written(greedy(posteriors(net, x)[0]))
            add(sums, f"errors_{split}", edits(text, row["digits"]), len(row["digits"]))
        elif row["kind"].startswith("neg"):
            add(sums, "false_a_minute", len(greedy(posteriors(net, x)[0])), float(row["seconds"]) / 60)
    return {k: round(a / b, 4) for k, (a, b) in sorted(sums.items())}


def add(sums: dict[str, list[float]], key: str, amount: float, of: float) -> None:
    sums[key][0] += amount
    sums[key][1] += of


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--pack", required=True)
    ap.add_argument("--split")
    ap.add_argument("--blank-penalty", type=float, default=0.0)
    args = ap.parse_args()
    torch.set_num_threads(1)
    net, table = load(args.model), defaultdict(lambda: defaultdict(int))
    for row, x in pack_of(args.pack):
        if args.split and row["split"] != args.split:
            continue
        digits, words = posteriors(net, x)
        kind, label = row["kind"], row["digits"]
        if kind in LENGTHS:
            text = written(greedy(digits, args.blank_penalty))
            best = next((v for v, _ in beam(ten(digits, args.blank_penalty), max(LENGTHS[kind])) if allowed(kind, v)), "")
            for name in (kind, f"{kind} >= 20 dB") if float(row["snr"]) >= 20 else (kind, f"{kind} < 20 dB"):
                t = table[row["split"], name]
                t["n"] += 1
                t["greedy"] += text == label
                t["right"] += best == label
                t["wrong"] += best not in ("", label)
                t["errors"] += edits(text, label)
                t["digits"] += len(label)
        elif kind == "word":
            t = table[row["split"], f"word {row['corpus']} {'digit' if row['text'] in NAMES else 'yesno'}"]
            t["n"] += 1
            if row["text"] in NAMES:
                t["right"] += [*range(10), 0][forced(digits, [[i] for i in range(1, 12)])] == NAMES[row["text"]]
            else:
                t["right"] += forced(words, [[WORDS.index("yes")], [WORDS.index("no")]]) == (row["text"] == "no")
        else:
            t = table[row["split"], kind]
            t["n"] += 1
            t["false"] += len(greedy(digits, args.blank_penalty))
            t["seconds"] += float(row["seconds"])
    for (split, name), t in sorted(table.items()):
        rest = f"greedy {t['greedy']}  wrong {t['wrong']}  digit errors {100 * t['errors'] / t['digits']:.1f} %" if t["digits"] else ""
        rest = f"false digits a minute {60 * t['false'] / t['seconds']:.2f}" if t["seconds"] else rest
        share = "" if t["seconds"] else f"right {t['right']:4} ({100 * t['right'] / t['n']:5.1f} %)  "
        print(f"{split:4} {name:22} n {t['n']:4}  {share}{rest}")


if __name__ == "__main__":
    main()
