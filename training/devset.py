"""Writes a pack of connected fields as score.py expects it, from speakers that are not trained on. Deterministic.

    python3 training/devset.py --data ../shared/data/speech --pool pool.npz --out PACK [--extra DIR] [--strings 40]

Split `dev`: the pack's dev speakers (four of them have other recordings among the training data). Split `val`: the
speakers corpus.py held back, unknown to every model but the last. --extra: 8 kHz negatives, named `<kind>_....wav`.
"""
import argparse
import csv
import os

import numpy as np
import soundfile as sf

from augment import Corpus, Maker, lossy, mulaw, placed
from corpus import DIGIT_NAMES, group_of, read, trimmed
from features import RATE

FIELDS = ("card", "wildcard", "routing", "zip", "expiry", "cvv", "account")
PREFIXES = ["4111", "4539", "4916", "5105", "5425", "2223", "6011", "3782", "3714"]
Clips = dict[str, dict[str, list[np.ndarray]]]


def luhn(body: str) -> str:
    """The body with its check digit."""
    total = sum(sum(divmod(int(c) * (2 - i % 2), 10)) for i, c in enumerate(reversed(body)))
    return body + str(-total % 10)


def value_of(field: str, rng: np.random.Generator) -> str:
    digits = lambda n: "".join(map(str, rng.integers(0, 10, n)))
    if field in ("card", "wildcard"):
        prefix = str(rng.choice(PREFIXES))
        return luhn(prefix + digits((15 if prefix[0] == "3" else 16) - 5))
    if field == "routing":
        while True:
            value = str(rng.choice(["0", "1", "2", "3"])) + digits(8)
            if 1 <= int(value[:2]) <= 32 and sum(int(c) * w for c, w in zip(value, (3, 7, 1) * 3)) % 10 == 0:
                return value
    if field == "expiry":
        return f"{rng.integers(1, 13):02}{rng.integers(26, 34)}"
    return digits({"zip": 5, "cvv": int(rng.choice([3, 3, 4])), "account": int(rng.integers(6, 13))}[field])


def spoken(value: str, field: str, clips: Clips, voices: list[str], rng: np.random.Generator) -> np.ndarray:
    """The digits one after another: cards mostly in groups of four; gaps overlap, touch, or are natural."""
    pieces, at = [], int(rng.uniform(0.2, 0.6) * RATE)
    low, high = [(-0.06, 0.02), (0.0, 0.12), (0.05, 0.3)][rng.integers(3)]
    grouped = field in ("card", "wildcard", "routing", "account") and rng.random() < 0.7
    for i, digit in enumerate(value):
        options = clips[voices[rng.integers(len(voices))]]
        while DIGIT_NAMES[int(digit)] not in options:
            options = clips[voices[rng.integers(len(voices))]]
        takes = options[DIGIT_NAMES[int(digit)]]
        x = takes[rng.integers(len(takes))]
        x = x / (np.sqrt((x**2).mean()) + 1e-6)
        gap = rng.uniform(0.25, 0.7) if grouped and i % (4 if field != "routing" else 3) == 0 else rng.uniform(low, high)
        at = max(0, at + int(gap * RATE)) if i else at
        pieces.append((at, x.astype(np.float32)))
        at += len(x)
    return placed(pieces, at + int(0.7 * RATE))


def on_the_line(speech: np.ndarray, noise: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """In noise at 10 to 30 dB, at some level, mu-law, 1 to 3 % of packets lost. The sound and its SNR."""
    snr = float(rng.uniform(10, 30))
    active = speech[np.abs(speech) > 1e-3]
    x = speech / np.sqrt((active**2).mean()) + noise * 10 ** (-snr / 20)
    x = mulaw(np.clip(x * 10 ** (rng.uniform(-32, -18) / 20), -1, 1))
    return lossy(x, rng, rng.uniform(0.01, 0.03)), round(snr, 1)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--data", required=True)
    ap.add_argument("--pool", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--extra")
    ap.add_argument("--strings", type=int, default=40, help="of each field and split")
    ap.add_argument("--seed", type=int, default=11)
    args = ap.parse_args()
    rng = np.random.default_rng(args.seed)
    os.makedirs(args.out, exist_ok=True)
    corpus = Corpus(args.pool, "val")
    maker = Maker(corpus, args.seed)
    words: list[tuple[str, str, str, np.ndarray]] = []  # split, speaker, text, sound
    with open(os.path.join(args.data, "manifest.csv"), newline="") as f:
        for row in csv.DictReader(f):
            if row["split"] == "dev" and group_of(row) in ("digit", "word", "other"):
                words.append(("dev", row["speaker"], row["text"], trimmed(read(os.path.join(args.data, row["path"])))))
    for group in ("digit", "word", "other"):
        for voice, clips in corpus.groups[group].items():
            if not voice.startswith(("tts:", "kk:")):
                words.extend(("val", voice, corpus.text[i], corpus.clip(i)) for i in clips)
    rows = []

    def keep(kind: str, split: str, speaker: str, text: str, digits: str, sound: np.ndarray, snr: float | str) -> None:
        path = f"{split}-{kind}-{len(rows):05}.wav"
        sf.write(os.path.join(args.out, path), np.clip(sound, -1, 1), RATE, subtype="PCM_16")
        corpus_name = speaker.split("-")[0]
        rows.append([path, f"{len(sound) / RATE:.3f}", corpus_name, speaker, text, digits, kind, split, snr, "0.02", "1", ""])

    for split in ("dev", "val"):
        clips: Clips = {}
        for s, speaker, text, x in words:
            if s == split and text in DIGIT_NAMES[:10]:
                clips.setdefault(speaker, {}).setdefault(text, []).append(x)
        full = [v for v in clips if len(clips[v]) == 10]
        for field in FIELDS:
            for _ in range(args.strings):
                voices = list(clips) if field == "wildcard" else [full[rng.integers(len(full))]]
                value = value_of(field, rng)
                x = spoken(value, field, clips, voices, rng)
                x, snr = on_the_line(x, maker.noise(len(x)), rng)
                keep(field, split, voices[0] if len(voices) == 1 else "mixed", "", value, x, snr)
        chosen = [w for w in words if w[0] == split and w[2] in (*DIGIT_NAMES[:10], "yes", "no")]
        others = [w for w in words if w[0] == split and w[2] not in DIGIT_NAMES]
        for kind, picked in (("word", chosen), ("neg-word", [w for w in others if w[2] not in ("yes", "no")])):
            for i in rng.permutation(len(picked))[:300]:
                _, speaker, text, x = picked[i]
                x = placed([(int(rng.uniform(0.2, 0.6) * RATE), x / (np.sqrt((x**2).mean()) + 1e-6))], len(x) + int(1.3 * RATE))
                x, snr = on_the_line(x, maker.noise(len(x)), rng)
                keep(kind, split, speaker, text, "", x, snr)
    for _ in range(20):
        keep("neg-noise", "dev", "none", "", "", mulaw(maker.noise(10 * RATE) * 10 ** (rng.uniform(-50, -25) / 20)), "")
    for name in sorted(os.listdir(args.extra)) if args.extra else []:
        keep(name.split("_")[0], "dev", "none", "", "", mulaw(read(os.path.join(args.extra, name))), "")
    with open(os.path.join(args.out, "manifest.csv"), "w", newline="") as f:
        out = csv.writer(f)
        out.writerow("path seconds corpus speaker text digits kind split snr loss human licence".split())
        out.writerows(rows)
    print(len(rows), "files")


if __name__ == "__main__":
    main()
