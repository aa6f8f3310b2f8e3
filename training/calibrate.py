"""Fits the table of src/speech/decode/confidence.rs on held-back speakers, and tests it on answers it has not seen.

    python3 training/calibrate.py PACK [--bin target/release/examples/evidence] [--model held-back.bin]

Build the program first: cargo build --release --example evidence. Use weights that never heard the speakers of split
`val` (--model, a weights file): of known speakers too many answers are right, and too surely. Each second answer of
`val` fits, the others test; speakers of split `dev` are only shown. Words that are no answer count in the fit a third.
For each field: how often answers of a confidence are right (what is told, what is so), and what thresholds take.
"""
import argparse
import csv
import os
import subprocess

import numpy as np
from scipy.optimize import minimize

TABLE = {"card": "CHECKED", "routing": "CHECKED", "zip": "PLAIN", "cvv": "PLAIN", "digits": "FREE", "expiry": "DATE",
         "digit": "DIGIT", "yesno": "YES_NO"}
FIELD = {"card": "card", "wildcard": "card", "routing": "routing", "zip": "zip", "expiry": "expiry", "cvv": "cvv",
         "account": "digits"}
DIGITS = {w: str(i) for i, w in enumerate("zero one two three four five six seven eight nine".split())} | {"oh": "0"}
PARTS = ("fit", "test", "dev")
BINS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1.001)


def question(row: dict) -> tuple[str, str] | None:
    """Field and right answer of a row of the manifest."""
    kind, text = row["kind"], row["text"]
    if kind == "word":
        return ("digit", DIGITS[text]) if text in DIGITS else ("yesno", text) if text in ("yes", "no") else None
    if kind.startswith("neg"):
        return "digits", ""
    return (FIELD[kind], row["digits"]) if kind in FIELD else None


class Answers:
    """Of one entry of the table: features, whether right, weight, and which part it belongs to."""

    def __init__(self, rows: list[tuple[list[float], float, float, str]]):
        self.x = np.array([[1.0, *features] for features, _, _, _ in rows])
        self.y, self.w = (np.array([row[i] for row in rows]) for i in (1, 2))
        self.part = np.array([row[3] for row in rows])

    def fit(self, of: np.ndarray) -> np.ndarray:
        x, y, w = self.x[of], self.y[of], self.w[of]
        loss = lambda b: (w * (np.logaddexp(0, x @ b) - y * (x @ b))).sum() + 0.15 * (b[1:] ** 2).sum()
        return minimize(loss, np.zeros(4), method="L-BFGS-B", bounds=[(None, None), (0, None), (None, 0), (None, 0)]).x


def evidence(pack: str, command: list[str]) -> dict[str, Answers]:
    """By entry of the table: what is known of each answer."""
    lines = []
    with open(os.path.join(pack, "manifest.csv"), newline="") as file:
        for row in csv.DictReader(file):
            if asked := question(row):
                lines.append("\t".join((*asked, row["split"], os.path.abspath(os.path.join(pack, row["path"])))))
    told = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    groups: dict[str, list] = {}
    for line in told.splitlines():
        field, label, split, _, right, *features = line.split("\t")
        rows = groups.setdefault(TABLE[field], [])
        known = sum(r[3] != "dev" for r in rows)
        part = "dev" if split == "dev" else PARTS[known % 2]
        rows.append(([float(x) for x in features], float(right), 1.0 if label else 0.3, part))
    return {name: Answers(rows) for name, rows in groups.items()}


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("pack"); ap.add_argument("--bin", default="target/release/examples/evidence"); ap.add_argument("--model")
    a = ap.parse_args()
    for name, answers in evidence(a.pack, [a.bin, *([a.model] if a.model else [])]).items():
        b = answers.fit(answers.part == "fit")
        p = 1 / (1 + np.exp(-answers.x @ b))
        print("%s { bias: %.2f, margin: %.2f, behind: %.2f, word: %.2f }" % (name, *b))
        for part in PARTS:
            of = answers.part == part
            if not of.any():
                continue
            told = [f"{p[s].mean():.3f}/{answers.y[s].mean():.3f} ({s.sum()})" for low, high in zip(BINS, BINS[1:]) if (s := of & (p >= low) & (p < high)).any()]
            print(f"  {part:4} {of.sum():4} answers, {answers.y[of].mean():.3f} right; told/so: {'  '.join(told)}")
            taken = [(t, of & (p >= t)) for t in (0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99)]
            print("       taken:wrong at " + "  ".join(f"{t}: {s.sum()}:{int((1 - answers.y[s]).sum())}" for t, s in taken))


if __name__ == "__main__":
    main()
