"""Gathers every recording into one pool of trimmed 8 kHz clips, with WORLD variants of the human digits.

    python3 training/corpus.py --data ../shared/data/speech --kokoro DIR --out pool.npz

A variant has its own pitch, formants and tempo: a new voice out of an old one. Rare speakers get many, frequent few.
"""
import argparse
import csv
import os
import zlib
from collections import Counter

import numpy as np
import pyworld
import soundfile as sf

from model import WORDS

DIGIT_NAMES = WORDS[1:12]
# Not trained on while choosing checkpoints: one speaker of many digits and ten of few. `--all` takes them in.
VALIDATION = {"fsdd-george"}
VALIDATION_RARE = 10
VOICES_EACH = 24  # other voices made of one speaker


def trimmed(x: np.ndarray) -> np.ndarray:
    """Without the quiet before and after the word (the floor is the recording's own); short clips are trimmed already."""
    if len(x) < 7000:
        return x
    frames = np.lib.stride_tricks.sliding_window_view(x, 160)[::80]
    level = 10 * np.log10((frames**2).mean(-1) + 1e-9)
    threshold = max(np.percentile(level, 10) + 6, level.max() - 36)
    loud = np.flatnonzero(level > min(threshold, level.max() - 12))
    return x[max(0, loud[0] * 80 - 240) : min(len(x), loud[-1] * 80 + 160 + 480)]


def revoiced(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same word by a speaker of another pitch, vocal tract and tempo."""
    x = x.astype(np.float64)
    f0, times = pyworld.dio(x, 8000, frame_period=5.0)
    f0 = pyworld.stonemask(x, f0, times, 8000)
    envelope, aperiodicity = pyworld.cheaptrick(x, f0, times, 8000, fft_size=512), pyworld.d4c(x, f0, times, 8000, fft_size=512)
    formants = np.exp(rng.uniform(-0.18, 0.18))
    pitch = formants ** 0.8 * np.exp(rng.uniform(-0.35, 0.35))
    bins = np.minimum(np.arange(257) / formants, 256)
    low = np.minimum(bins.astype(int), 255)
    envelope = envelope[:, low] ** (1 - bins + low) * envelope[:, low + 1] ** (bins - low)
    tempo = np.exp(rng.uniform(-0.25, 0.25))
    pick = np.minimum((np.arange(int(len(f0) / tempo)) * tempo).astype(int), len(f0) - 1)
    y = pyworld.synthesize(f0[pick] * pitch, np.ascontiguousarray(envelope[pick]), np.ascontiguousarray(aperiodicity[pick]), 8000, 5.0)
    return (y * min(1.0, 0.9 / (np.abs(y).max() + 1e-9))).astype(np.float32)


def read(path: str) -> np.ndarray:
    x, rate = sf.read(path, dtype="float32")
    assert rate == 8000, path
    return x if x.ndim == 1 else x[:, 0]


def group_of(row: dict[str, str]) -> str:
    """digit, word, other (speech with no word of ours), string (connected), music, noise, prompt."""
    if row["kind"].startswith("neg-"):
        return row["kind"][4:]
    if row["kind"] in ("noise", "synth-neg") or row["text"] == "_silence_":
        return "other" if row["kind"] == "synth-neg" else "noise"
    if row["kind"] == "synth-string":
        return "string"
    return "digit" if row["text"] in DIGIT_NAMES else "word" if row["text"] in WORDS else "other"


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--data", required=True)
    ap.add_argument("--kokoro", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--all", action="store_true", help="train on the validation speakers too")
    args = ap.parse_args()
    rng = np.random.default_rng(7)
    with open(os.path.join(args.data, "manifest.csv"), newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["split"] == "train"]
    counts = Counter(r["speaker"] for r in rows if r["human"] == "1" and group_of(r) == "digit")
    rare = sorted(s for s, n in counts.items() if s.startswith("sc-") and n <= 4)
    held = VALIDATION | set(np.random.default_rng(3).permutation(rare)[:VALIDATION_RARE].tolist())
    clips: list[tuple[np.ndarray, str, str, str, str]] = []  # sound, speaker, text, group, split
    for row in rows:
        group, x = group_of(row), read(os.path.join(args.data, row["path"]))
        human = row["human"] == "1"
        x = trimmed(x) if group in ("digit", "word", "other") else x
        split = "val" if row["speaker"] in held and not args.all else "train"
        voice = row["speaker"] if human else f"tts:{row['speaker']}"
        clips.append((x, voice, row["text"], group, split))
        if human and group in ("digit", "word") and split == "train" and len(x) > 1200:
            frequent = counts[row["speaker"]] > 100
            for i in rng.permutation(VOICES_EACH)[: 3 if group == "word" else 8 if frequent else VOICES_EACH]:
                clips.append((revoiced(x, np.random.default_rng(zlib.crc32(f"{voice}~{i}".encode()))), f"{voice}~{i}", row["text"], group, split))
    with open(os.path.join(args.kokoro, "manifest.csv"), newline="") as f:
        for row in csv.DictReader(f):
            path = os.path.join(args.kokoro, row["path"])
            if os.path.exists(path):
                kind = row["kind"]
                group = "other" if kind == "other" else "digit" if row["text"] in DIGIT_NAMES else "string" if kind == "digits" else "phrase"
                clips.append((trimmed(read(path)), f"kk:{row['speaker']}", row["text"], group, "train"))
    sound = np.concatenate([np.clip(x * 32767, -32767, 32767).astype(np.int16) for x, *_ in clips])
    ends = np.cumsum([len(x) for x, *_ in clips])
    speaker, text, group, split = (np.array(column) for column in list(zip(*clips))[1:])
    np.savez(args.out, sound=sound, ends=ends, speaker=speaker, text=text, group=group, split=split)
    print(len(clips), "clips,", f"{len(sound) / 8000 / 60:.0f} minutes;", Counter(zip(group.tolist(), split.tolist())), "validation:", sorted(held))


if __name__ == "__main__":
    main()
