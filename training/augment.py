"""Makes training batches out of the pool: strings of one caller's words, a line, noise, and the front-end's features.

Each row is filled to the batch's duration, so nothing is padded: after the last word comes what the line sounds like.
"""
import io
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import soundfile as sf

from scipy.fft import irfft, next_fast_len, rfft

from features import RATE, agc, band_powers, bank
from model import DIGITS, WORDS

WARPS = np.linspace(0.86, 1.16, 13)
BANKS = np.stack([bank(w) for w in WARPS])
DIGIT_OF, WORD_OF = {w: i for i, w in enumerate(DIGITS)}, {w: i for i, w in enumerate(WORDS)}
OTHER = WORD_OF["<other>"]
SHARES = {"joined": 0.29, "rare": 0.22, "connected": 0.26, "words": 0.11, "negative": 0.12}
TAIL = 0.5  # seconds after the last word, at least


@dataclass
class Batch:
    features: np.ndarray  # [rows][frames][32]
    digits: list[list[int]]
    words: list[list[int] | None]  # None: not known, no loss
    spans: np.ndarray  # [rows][outputs] i64: which digit is being said, 0 none, -1 not known


Span = tuple[int, int, int]  # samples from, to, symbol


def mulaw(x: np.ndarray) -> np.ndarray:
    """Through G.711 mu-law and back."""
    y = np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256)
    y = np.round(y * 127.5 - 0.5 * np.sign(y)) + 0.5 * np.sign(y)
    return np.sign(x) * np.expm1(np.abs(np.clip(y / 127.5, -1, 1)) * np.log(256)) / 255


def alaw(x: np.ndarray) -> np.ndarray:
    """Through G.711 A-law and back."""
    a, c = np.abs(x), 1 + np.log(87.6)
    y = np.where(a < 1 / 87.6, 87.6 * a / c, (1 + np.log(np.maximum(87.6 * a, 1e-9))) / c)
    y = (np.minimum(np.floor(y * 128), 127) + 0.5) / 128
    return np.sign(x) * np.where(y < 1 / c, y * c / 87.6, np.exp(y * c - 1) / 87.6)


def recoded(x: np.ndarray, form: str, subtype: str) -> np.ndarray:
    """Through a codec of libsndfile and back, same length."""
    file = io.BytesIO()
    sf.write(file, x, RATE, format=form, subtype=subtype)
    file.seek(0)
    y = sf.read(file, dtype="float32")[0]
    return np.pad(y, (0, max(0, len(x) - len(y))))[: len(x)]


def tones(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Keys, dial, ring-back or busy tone."""
    t = np.arange(samples) / RATE
    kind = rng.integers(4)
    if kind == 0:
        x = np.zeros(samples)
        at = int(rng.uniform(0, 0.5) * RATE)
        while at < samples:
            on = int(rng.uniform(0.06, 0.3) * RATE)
            low, high = rng.choice([697, 770, 852, 941]), rng.choice([1209, 1336, 1477])
            s = slice(at, min(samples, at + on))
            x[s] = np.sin(2 * np.pi * low * t[s]) + np.sin(2 * np.pi * high * t[s])
            at += on + int(rng.uniform(0.06, 0.8) * RATE)
        return x
    pair, on, off = [((350, 440), 9, 0), ((440, 480), 2, 4), ((480, 620), 0.5, 0.5)][kind - 1]
    x = sum(np.sin(2 * np.pi * f * t) for f in pair)
    return x * ((t + rng.uniform(0, 3)) % (on + off) < on)


def line(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Handset, room and telephone band, as one filter."""
    samples = next_fast_len(len(x) + 2400, real=True)
    f = np.fft.rfftfreq(samples, 1 / RATE).astype(np.float32)
    low, high = rng.uniform(80, 380), rng.uniform(2900, 3900)
    slope = rng.uniform(3, 12, 2)
    gain = 1 / (1 + (low / np.maximum(f, 1)) ** slope[0]) / (1 + (f / high) ** (2 * slope[1]))
    if rng.random() < 0.15:
        gain = np.ones_like(f)
    knots = np.cumsum(rng.normal(0, 1.8, 9)) * rng.choice([0, 1, 1])
    tilt = rng.uniform(-3, 3) * np.log2(np.maximum(f, 100) / 1000)
    gain = gain * 10 ** ((np.interp(f, np.linspace(0, 4000, 9), knots - knots.mean()) + tilt) / 20)
    response = gain.astype(np.complex64)
    if rng.random() < 0.4:
        length = int(rng.uniform(0.03, 0.3) * RATE)
        h = rng.standard_normal(length, np.float32) * np.exp(-6.9 * np.arange(length) / length)
        h *= 10 ** (rng.uniform(-22, -3) / 20) / np.sqrt((h**2).sum())
        h[0] += 1
        response = response * rfft(h.astype(np.float32), samples)
    return irfft(rfft(x, samples) * response, samples)[: len(x)]


def lossy(x: np.ndarray, rng: np.random.Generator, rate: float) -> np.ndarray:
    """This part of the 20 ms packets lost, one by one and in bursts; the gap is silent or the last packet, fading."""
    burst, silent = rng.uniform(1, 2.2), rng.random() < 0.4
    x = x[: len(x) // 160 * 160].reshape(-1, 160).copy()
    run = 0
    for i in range(1, len(x)):
        run = run + 1 if rng.random() < (rate / burst if run == 0 else 1 - 1 / burst) else 0
        if run:
            x[i] = 0 if silent or run > 3 else x[i - 1] * (0.8 if run == 1 else 0.5)
    return x.ravel().astype(np.float32)


class Corpus:
    """The pool of corpus.py, by what the batches draw from it."""

    def __init__(self, path: str, split: str = "train"):
        z = np.load(path)
        self.sound, ends = z["sound"], z["ends"]
        self.spans = list(zip(np.concatenate([[0], ends[:-1]]).tolist(), ends.tolist()))
        self.text = z["text"].tolist()
        speaker, group, parts = z["speaker"].tolist(), z["group"].tolist(), z["split"].tolist()
        self.digits: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for i, voice in enumerate(speaker):
            # What only fills the background is shared by the splits.
            if parts[i] == split or group[i] in ("noise", "music", "prompt", "string"):
                self.groups[group[i]][voice].append(i)
                if group[i] == "digit":
                    self.digits[voice][self.text[i]].append(i)
        self.frequent = [v for v, words in self.digits.items() if len(words) >= 9]
        self.rare = [v for v, words in self.digits.items() if len(words) < 9]
        self.words = {w: [i for g in ("word",) for v in self.groups[g].values() for i in v if self.text[i] == w] for w in WORDS}
        self.words = {w: clips for w, clips in self.words.items() if clips}

    def clip(self, i: int) -> np.ndarray:
        start, end = self.spans[i]
        return self.sound[start:end].astype(np.float32) / 32768

    def any(self, rng: np.random.Generator, group: str, voice: str | None = None) -> int:
        """A clip of a group: the speaker is drawn first, so all speakers count alike."""
        voices = self.groups[group]
        clips = voices[voice] if voice in voices else voices[list(voices)[rng.integers(len(voices))]]
        return clips[rng.integers(len(clips))]


class Maker:
    """Draws batches from a corpus."""

    def __init__(self, corpus: Corpus, seed: int):
        self.corpus, self.rng = corpus, np.random.default_rng(seed)

    def batch(self, seconds_in_all: float = 240) -> Batch:
        seconds = float(self.rng.choice([2.56, 5.12, 8.96], p=[0.3, 0.4, 0.3]))
        rows = int(seconds_in_all / seconds)
        samples = int(seconds * RATE)
        waves, digits, words = np.zeros((rows, samples + 120), np.float32), [], []
        spans = np.full((rows, samples // 320), -1, np.int64)
        for row, marks in zip(waves, spans):
            wave, d, w = self.utterance(samples + 120, marks)
            row[: len(wave)] = wave[: samples + 120]
            digits.append(d)
            words.append(w)
        warps = BANKS[np.clip(np.round(self.rng.normal(6, 1.7, rows)), 0, 12).astype(int)]
        start = np.where(self.rng.random(rows) < 0.4, self.rng.uniform(-5, 2, rows), -5).astype(np.float32)
        return Batch(agc(band_powers(waves, warps), start), digits, words, spans)

    def utterance(self, samples: int, marks: np.ndarray) -> tuple[np.ndarray, list[int], list[int] | None]:
        """Sound and symbols of both heads; `marks` gets the spans where they are known."""
        kind = self.rng.choice(list(SHARES), p=list(SHARES.values()))
        digits, words = [], []
        if kind == "negative":
            speech, words = self.negative(samples)
            marks[:] = 0
        elif kind == "words":
            speech, digits, words = self.spoken(samples)
        elif kind == "connected":
            speech, digits, words = self.connected(samples)
        else:
            speech, spans = self.joined(samples, kind == "rare")
            digits = words = [symbol for _, _, symbol in spans]
            mark(marks, spans)
        return self.heard(speech, samples, kind), digits, words

    def joined(self, samples: int, rare: bool) -> tuple[np.ndarray, list[Span]]:
        """Isolated digits of one caller (or a few rare ones) in a row."""
        rng, corpus = self.rng, self.corpus
        if rare:
            voices = [corpus.rare[i] for i in rng.integers(len(corpus.rare), size=rng.integers(2, 5))]
        else:
            voices = [corpus.frequent[rng.integers(len(corpus.frequent))]]
        # As many digits as some field has; a long batch is for long fields.
        most = int(rng.choice([4, 5, 9, 15, 16, 16] if samples > 6 * RATE else [1, 2, 3, 4, 4, 5, 6, 9]))
        style = rng.choice(["fluent", "short", "natural", "slow"], p=[.3, .3, .25, .15])
        group = int(rng.choice([3, 4, 99], p=[.15, .55, .3]))
        rate = float(np.exp(rng.normal(0, 0.05)))  # pitch, formants and tempo together
        pieces, spans, at, last = [], [], int(rng.uniform(0.05, 0.5) * RATE), ""
        while len(spans) < most:
            voice = voices[rng.integers(len(voices))]
            options = corpus.digits[voice]
            names = list(options)
            name = last if last in options and rng.random() < 0.12 else names[rng.integers(len(names))]
            x = corpus.clip(options[name][rng.integers(len(options[name]))])
            x = x / (np.sqrt((x**2).mean()) + 1e-6) * 10 ** (rng.normal(0, 2) / 20)
            up = max(1, int(round(len(x) / rate)))
            x = np.interp(np.linspace(0, len(x) - 1, up), np.arange(len(x)), x).astype(np.float32)
            gap = {"fluent": rng.uniform(-0.09, 0.02), "short": rng.uniform(-0.03, 0.12), "natural": rng.uniform(0.05, 0.35), "slow": rng.uniform(0.2, 0.7)}[style]
            if spans and len(spans) % group == 0 and rng.random() < 0.8:
                gap = rng.uniform(0.2, 0.9)
            at = max(0, at + (int(gap * RATE) if spans else 0))
            if at + len(x) > samples - int(TAIL * RATE):
                break
            fade = min(80, len(x) // 4)
            x[:fade] *= np.linspace(0, 1, fade)
            x[-fade:] *= np.linspace(1, 0, fade)
            pieces.append((at, x))
            spans.append((at, at + len(x), DIGIT_OF[name]))
            at += len(x)
            last = name
        return placed(pieces, samples), spans

    def row_of(self, samples: int, pick) -> tuple[np.ndarray, list[int]]:
        """Clips that `pick` names, one after another with pauses, while they fit; and which they were."""
        pieces, chosen, at = [], [], int(self.rng.uniform(0.05, 0.6) * RATE)
        while True:
            i = pick()
            x = self.corpus.clip(i)
            x = x / (np.sqrt((x**2).mean()) + 1e-6)
            if at + len(x) > samples - int(TAIL * RATE):
                return placed(pieces, samples), chosen
            pieces.append((at, x))
            chosen.append(i)
            at += len(x) + int(self.rng.uniform(0.05, 0.9) * RATE)
            if self.rng.random() < 0.3:
                return placed(pieces, samples), chosen

    def connected(self, samples: int) -> tuple[np.ndarray, list[int], list[int]]:
        """Truly connected synthetic strings of one voice, now and then among its other words."""
        rng, strings = self.rng, self.corpus.groups["string"]
        names = list(strings)
        voice = names[rng.integers(len(names))]
        chatty = rng.random() < 0.15 and voice in self.corpus.groups["other"]
        speech, chosen = self.row_of(samples, lambda: self.corpus.any(rng, "other" if chatty and rng.random() < 0.4 else "string", voice))
        text = " ".join(self.corpus.text[i] for i in chosen).split()
        return speech, [DIGIT_OF[w] for w in text if w in DIGIT_OF], [WORD_OF.get(w, OTHER) for w in text]

    def spoken(self, samples: int) -> tuple[np.ndarray, list[int], list[int]]:
        """Commands, amounts, months, and other single words. Phrases hold numbers, so no digits loss: see `digits`."""
        rng, corpus = self.rng, self.corpus
        draw = rng.random()
        if draw < 0.45:
            names = ["yes", "no"] if rng.random() < 0.45 else list(corpus.words)
            speech, chosen = self.row_of(samples, lambda: int(rng.choice(corpus.words[names[rng.integers(len(names))]])))
        else:
            group = "phrase" if draw < 0.75 else "other"
            speech, chosen = self.row_of(samples, lambda: corpus.any(rng, group))
        text = " ".join(corpus.text[i] for i in chosen).split()
        digits = [DIGIT_OF[w] for w in text if w in DIGIT_OF]
        return speech, digits, [WORD_OF.get(w, OTHER) for w in text]

    def negative(self, samples: int) -> tuple[np.ndarray, list[int] | None]:
        """What must stay silent: prompts, talk, music, tones, noise alone."""
        rng = self.rng
        kind = rng.choice(["prompt", "other", "music", "tones", "noise"], p=[.25, .3, .15, .15, .15])
        if kind == "tones":
            return tones(rng, samples).astype(np.float32), []
        if kind == "noise":
            return np.zeros(samples, np.float32), []
        if kind == "music":
            return self.stretch(self.corpus.any(rng, "music"), samples), []
        if kind == "prompt":
            return self.row_of(samples * 2, lambda: self.corpus.any(rng, "prompt"))[0][:samples], None
        speech, _ = self.row_of(samples, lambda: self.corpus.any(rng, "other"))
        return speech, None

    def stretch(self, i: int, samples: int) -> np.ndarray:
        """A random piece of a long recording, repeated if it is short."""
        x = self.corpus.clip(i)
        start = self.rng.integers(max(1, len(x) - samples))
        return np.resize(x[start:], samples)

    def noise(self, samples: int) -> np.ndarray:
        """White, coloured, recorded, babble or a hum; unit power."""
        rng = self.rng
        kind = rng.choice(["colour", "recorded", "babble", "music"], p=[.4, .35, .2, .05])
        if kind == "recorded":
            x = self.stretch(self.corpus.any(rng, "noise"), samples)
        elif kind == "music":
            x = self.stretch(self.corpus.any(rng, "music"), samples)
        elif kind == "babble":
            x = np.zeros(samples, np.float32)
            for _ in range(rng.integers(3, 7)):
                talk, _ = self.row_of(samples + 4000, lambda: self.corpus.any(rng, rng.choice(["other", "string", "prompt"])))
                x += np.roll(talk[:samples], rng.integers(samples))
        else:
            size = next_fast_len(samples, real=True)
            f = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 30).astype(np.float32)
            x = irfft(rfft(rng.standard_normal(size, np.float32)) * f ** np.float32(-rng.uniform(0, 1)), size)[:samples]
        return (x / (np.sqrt((x**2).mean()) + 1e-6)).astype(np.float32)

    def heard(self, speech: np.ndarray, samples: int, kind: str) -> np.ndarray:
        """The speech as it arrives: in noise, over a line and a codec, at any level, with packets lost."""
        rng = self.rng
        active = speech[np.abs(speech) > 1e-3]
        power = np.sqrt((active**2).mean()) if len(active) > 100 else 1.0
        x = speech / power
        snr = rng.uniform(5, 35) if rng.random() < 0.85 else 60
        early = rng.random() < 0.5
        noise = self.noise(samples) * 10 ** (-snr / 20)
        x = line(x + noise, rng) if early else line(x, rng) + noise
        x = x * 10 ** (rng.uniform(-44, -15) / 20)
        if rng.random() < 0.08:
            top = np.abs(x).max() * rng.uniform(0.3, 0.8)
            x = np.clip(x, -top, top)
        x = np.clip(x, -1, 1)
        draw = rng.random()
        if draw < 0.05:
            x = recoded(x, "WAV", "GSM610")
        elif draw < 0.06:
            x = recoded(x, *[("OGG", "OPUS"), ("AU", "G723_24"), ("WAV", "G721_32")][rng.integers(3)])
        x = mulaw(x) if rng.random() < 0.75 else alaw(x)
        return lossy(x, rng, rng.uniform(0, 0.05)) if rng.random() < 0.6 else x.astype(np.float32)


def mark(marks: np.ndarray, spans: list[Span]) -> None:
    """What each output should name: a word from its middle to 100 ms after its end, silence between words."""
    heard = 320 * np.arange(len(marks)) + 440
    marks[:] = 0
    for start, end, symbol in spans:
        marks[(heard >= start) & (heard < (start + end) // 2)] = -1
        marks[(heard >= (start + end) // 2) & (heard <= end + 800)] = symbol


def placed(pieces: list[tuple[int, np.ndarray]], samples: int) -> np.ndarray:
    out = np.zeros(samples, np.float32)
    for at, x in pieces:
        end = min(samples, at + len(x))
        out[at:end] += x[: end - at]
    return out
