"""Words cut out of strings as a line carries them: what the teacher and the second look learn from."""
from dataclasses import dataclass

import numpy as np

from augment import DIGIT_OF, Corpus, Maker, Span, placed
from features import RATE

NAMES = "zero one two three four five six seven eight nine oh".split()
OTHER = len(NAMES)  # no digit, or not one whole digit
CLASSES = OTHER + 1
CLASS_OF = {DIGIT_OF[name]: i for i, name in enumerate(NAMES)}
SHARES = {"joined": 0.36, "rare": 0.44, "other": 0.2}
TAIL = 0.5


@dataclass
class Row:
    wave: np.ndarray  # as heard
    spans: list[Span]  # from, to, symbol of the digits head, 0 for a word that is none


class Rows(Maker):
    """Strings whose words' places are known."""

    def row(self, samples: int) -> Row:
        kind = self.rng.choice(list(SHARES), p=list(SHARES.values()))
        speech, spans = self.others(samples) if kind == "other" else self.joined(samples, kind == "rare")
        return Row(self.heard(speech, samples, "joined"), spans)

    def others(self, samples: int) -> tuple[np.ndarray, list[Span]]:
        """Words that are no digits, one of many people each, and now and then a digit among them."""
        rng, pieces, spans, at = self.rng, [], [], int(self.rng.uniform(0.05, 0.5) * RATE)
        while True:
            draw = rng.random()
            if draw < 0.25:
                words = self.corpus.digits[self.corpus.rare[rng.integers(len(self.corpus.rare))]]
                name = list(words)[rng.integers(len(words))]
                i, symbol = words[name][rng.integers(len(words[name]))], DIGIT_OF[name]
            else:
                i, symbol = self.corpus.any(rng, "other" if draw < 0.75 else "word"), 0
            x = self.corpus.clip(i)
            if len(x) > 1.6 * RATE:
                start = rng.integers(len(x) - RATE)
                x = x[start : start + RATE]
            x = x / (np.sqrt((x**2).mean()) + 1e-6)
            if at + len(x) > samples - int(TAIL * RATE):
                return placed(pieces, samples), spans
            pieces.append((at, x))
            spans.append((at, at + len(x), symbol))
            at += len(x) + int(rng.uniform(-0.02, 0.5) * RATE)


def cut(wave: np.ndarray, start: int, end: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """These samples as the teacher's second: at one level, anywhere in it, over a faint hiss."""
    rng = rng or np.random.default_rng(0)
    x = wave[max(0, start) : max(0, end)][:RATE]
    out = rng.standard_normal(RATE, np.float32) * 1e-4
    at = rng.integers(RATE - len(x) + 1) if rng is not None and len(x) < RATE else 0
    out[at : at + len(x)] += x * (0.1 / (np.sqrt((x**2).mean()) + 1e-5)) if len(x) else 0
    return out


def of_row(row: Row, rng: np.random.Generator, halves: float = 0.1) -> list[tuple[np.ndarray, int, tuple[int, int]]]:
    """Each word of a row with loose ends, its class and its place; and some that begin and end in midst of words."""
    out = []
    for k, (start, end, symbol) in enumerate(row.spans):
        a, b = start - int(rng.uniform(-0.02, 0.06) * RATE), end + int(rng.uniform(-0.02, 0.1) * RATE)
        out.append((cut(row.wave, a, b, rng), CLASS_OF.get(symbol, OTHER), (a, b)))
        if rng.random() < halves and k + 1 < len(row.spans):
            a, b = (start + end) // 2, (row.spans[k + 1][0] + row.spans[k + 1][1]) // 2
            out.append((cut(row.wave, a, b, rng), OTHER, (a, b)))
    return out


__all__ = ["CLASSES", "CLASS_OF", "Corpus", "NAMES", "OTHER", "Row", "Rows", "cut", "of_row"]
