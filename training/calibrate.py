"""Fits the table of src/speech/decode/confidence.rs on a pack of development speakers, and shows what thresholds give.

    python3 training/calibrate.py PACK [--bin target/release/examples/evidence]

Build the program first: cargo build --release --example evidence. Unheard speakers (split `val`) weigh twice, words that
are no answer a third. A threshold is to be set where no accepted answer is wrong, or one in some hundred.
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


def question(row: dict) -> tuple[str, str] | None:
    """Field and right answer of a row of the manifest."""
    kind, text = row["kind"], row["text"]
    if kind == "word":
        return ("digit", DIGITS[text]) if text in DIGITS else ("yesno", text) if text in ("yes", "no") else None
    if kind.startswith("neg"):
        return "digits", ""
    return (FIELD[kind], row["digits"]) if kind in FIELD else None


def evidence(pack: str, program: str) -> dict[str, list[tuple[list[float], float, float]]]:
    """By entry of the table: what is known of each answer, whether it is right, and its weight."""
    lines = []
    with open(os.path.join(pack, "manifest.csv"), newline="") as file:
        for row in csv.DictReader(file):
            if asked := question(row):
                lines.append("\t".join((*asked, row["split"], os.path.abspath(os.path.join(pack, row["path"])))))
    told = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    groups: dict[str, list[tuple[list[float], float, float]]] = {}
    for line in told.splitlines():
        field, label, split, _, right, *features = line.split("\t")
        weight = (2.0 if split == "val" else 1.0) * (1.0 if label else 0.3)
        groups.setdefault(TABLE[field], []).append(([float(x) for x in features], float(right), weight))
    return groups


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("pack"); ap.add_argument("--bin", default="target/release/examples/evidence")
    a = ap.parse_args()
    for name, rows in evidence(a.pack, a.bin).items():
        x = np.array([[1.0, *features] for features, _, _ in rows])
        y, w = (np.array([row[i] for row in rows]) for i in (1, 2))
        loss = lambda b: (w * (np.logaddexp(0, x @ b) - y * (x @ b))).sum() + 0.15 * (b[1:] ** 2).sum()
        bounds = [(None, None), (0, None), (None, 0), (None, 0)]
        b = minimize(loss, np.zeros(4), method="L-BFGS-B", bounds=bounds).x
        p = 1 / (1 + np.exp(-x @ b))
        print("%s { bias: %.2f, margin: %.2f, behind: %.2f, word: %.2f }, %d answers" % (name, *b, len(y)))
        for least in (0.5, 0.7, 0.9, 0.95, 0.96, 0.97, 0.98, 0.99):
            taken = p >= least
            print(f"   at {least}: {taken.sum()} taken, {int((1 - y[taken]).sum())} of them wrong")


if __name__ == "__main__":
    main()
