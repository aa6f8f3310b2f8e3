"""Speaks training utterances with Kokoro-82M (Apache 2.0): many voices and mixtures of voices, true connected speech.

    python3 training/voices.py --model kokoro-v1.0.int8.onnx --vocab vocab.json --voices DIR --out DIR [--minutes 20] [--seed 1] [--prose TEXT]

--voices holds the style vectors (`af_heart.bin` ...: 510 x 256 f32 each). Phonemes come from espeak-ng. Writes 8 kHz
FLAC files and appends to manifest.csv (path, speaker, text, kind); run again with another seed for more.
"""
import argparse
import csv
import json
import os
import re
import subprocess
import time
from functools import lru_cache

import numpy as np
import onnxruntime as ort
import soundfile as sf
from scipy.signal import resample_poly

DIGITS = "zero one two three four five six seven eight nine".split()
MONTHS = "january february march april may june july august september october november december".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
COMMANDS = ["yes", "no", "repeat", "agent", "operator", "cancel", "stop", "go back"]
ACCENTS = ["en-us", "en-us", "en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029"]
# Sentences without a digit word, for what must stay silent.
OTHER = """hello is anyone there|could you say that again please|one moment i am looking for my card|sorry my dog is barking
just a second let me get my glasses|the card is in the other room|who is this calling|i would like to pay my bill
can i speak to somebody please|it is the visa card i think|the name on the card is different|what do you need it for
my address has changed since last year|thank you very much|okay great thanks|hold on a minute|that is not what i said
please enter your account number followed by the pound key|your call is important to us please stay on the line
the weather is lovely today isn't it|put the kettle on will you|i am in the car at the moment|hmm let me see
where do i find that on the back|the postal code of my billing address|do you take american express|right okay
left right up down on off|happy birthday to you|i already paid that last week|turn the radio down please
can you hear me now|the line is very bad|we would like that delivered on tuesday|my wife has the details
excuse me|good morning|good afternoon how may i help you|the security code please|expiration date|alright then""".replace("\n", "|").split("|")
SYMBOLS = {"aɪ": "I", "aʊ": "W", "eɪ": "A", "oʊ": "O", "əʊ": "Q", "ɔɪ": "Y", "dʒ": "ʤ", "tʃ": "ʧ", "ɚ": "əɹ", "ɝ": "ɜɹ", "r": "ɹ", "ɐ": "ə",
           "ɾ": "T", "ʔ": "t", "e": "A", "x": "k", "ɬ": "l", "ː": "", "̩": "", "̃": "", "-": ""}

# What speakers of other languages make of English: (sounds, instead) pairs; a voice gets one row.
FOREIGN = [[("θ", "t"), ("ɹ", "r"), ("ɪ", "i"), ("ʌ", "a"), ("v", "f"), ("z", "s")], [("θ", "s"), ("ɹ", "ʁ"), ("w", "v"), ("ʌ", "œ"), ("ə", "ɛ")],
           [("θ", "s"), ("ɹ", "ɾ"), ("ɪ", "i"), ("v", "b"), ("z", "s"), ("ʌ", "a")], [("θ", "t̪"), ("ɹ", "ɾ"), ("w", "ʋ"), ("v", "ʋ"), ("ʌ", "a"), ("A", "e")],
           [("θ", "f"), ("A", "I"), ("I", "Y"), ("ɹ", "ɹ")], [("θ", "s"), ("ɹ", "l"), ("v", "b"), ("ɪ", "i")], [("ɪ", "i"), ("ʌ", "ɔ"), ("ə", "a")]]


@lru_cache(maxsize=4096)
def phonemes(text: str, accent: str) -> str:
    """IPA of a phrase as the model's symbols (diphthongs are one letter there)."""
    ipa = subprocess.run(["espeak-ng", "-q", "--ipa", "-v", accent, text], capture_output=True, text=True, check=True).stdout
    ipa = re.sub(r"\([a-z-]+\)", "", " ".join(ipa.split()))
    for old, new in SYMBOLS.items():
        ipa = ipa.replace(old, new)
    return ipa


def digit_text(rng: np.random.Generator) -> str:
    """A string of digits as callers say it: grouped, fluent, with oh, double and triple."""
    length = int(rng.choice([1, 2, 3, 4, 5, 6, 8, 9, 10, 15, 16], p=[.14, .06, .12, .22, .12, .06, .06, .08, .04, .02, .08]))
    group = int(rng.choice([3, 4, 4, 4, 99]))
    oh = rng.random() < 0.35
    said, i = [], 0
    while i < length:
        digit = int(rng.integers(10))
        word = "oh" if digit == 0 and oh else DIGITS[digit]
        run = 3 if length - i >= 3 and rng.random() < 0.03 else 2 if length - i >= 2 and rng.random() < 0.07 else 1
        if run > 1 and rng.random() < 0.6:
            said.append(("triple " if run == 3 else "double ") + word)
        else:
            said.extend([word] * run)
        i += run
        if i < length and (i % group == 0 or rng.random() < 0.05):
            said[-1] += rng.choice([",", ",", "...", ";"])
    return " ".join(said)


def word_text(rng: np.random.Generator) -> tuple[str, str]:
    """An utterance of the wider vocabulary, and its kind: command, amount, expiry."""
    kind = rng.choice(["command", "amount", "expiry"], p=[.45, .35, .2])
    if kind == "command":
        return str(rng.choice(COMMANDS)), kind
    number = lambda: str(rng.choice([str(rng.choice(TEENS)), str(rng.choice(TENS)), f"{rng.choice(TENS)} {rng.choice(DIGITS[1:])}", str(rng.choice(DIGITS[1:]))]))
    if kind == "expiry":
        month = str(rng.choice(MONTHS + TEENS[:3] + [f"{z} {d}" for z in ("oh", "zero") for d in DIGITS[1:]]))
        return f"{month} {rng.choice(['', 'twenty '])}twenty {rng.choice(DIGITS[4:])}", kind
    whole = rng.choice([number(), f"{rng.choice(DIGITS[1:])} hundred", f"{rng.choice(DIGITS[1:])} hundred {rng.choice(['', 'and '])}{number()}",
                        f"{number()} thousand", f"{rng.choice(DIGITS[1:])} thousand {rng.choice(DIGITS[1:])} hundred"])
    cents = rng.choice(["", f" and {number()} cents", f" {number()} cents", f" point {rng.choice(DIGITS)} {rng.choice(DIGITS)}"])
    return (f"{whole}{cents}" if "point" in cents else f"{whole} {'dollar' if whole == 'one' else 'dollars'}{cents}"), kind


def sentences(path: str) -> list[str]:
    """Runs of 3 to 14 plain words of a text that hold no word of numbers."""
    numbers = {*DIGITS, *TEENS, *TENS, "oh", "hundred", "thousand", "double", "triple"}
    runs = [" ".join(run.lower().split()) for run in re.split(r"[^A-Za-z' \n]+|\n\n", open(path).read())]
    return sorted({run for run in runs if 3 <= len(run.split()) <= 14 and not numbers & set(run.split())})


def style_of(voices: dict[str, np.ndarray], rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """A voice or a mixture of two; English voices are drawn more often."""
    names = sorted(voices)
    weight = np.array([3.0 if n[0] in "ab" else 1.0 for n in names])
    first, second = rng.choice(len(names), 2, replace=False, p=weight / weight.sum())
    if rng.random() < 0.35:
        return names[first], voices[names[first]]
    share = float(np.round(rng.uniform(0.3, 0.7), 2))
    return f"{names[first]}*{share}+{names[second]}", share * voices[names[first]] + (1 - share) * voices[names[second]]


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "vocab", "voices", "out"):
        ap.add_argument(f"--{name}", required=True)
    ap.add_argument("--minutes", type=float, default=20)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--prose", help="a text whose sentences are spoken too, for what must stay silent")
    ap.add_argument("--foreign", type=float, default=0.3, help="part of the voices with another language's accent")
    ap.add_argument("--shares", type=float, nargs=3, default=(0.66, 0.22, 0.12), help="of digits, of words, of other speech")
    args = ap.parse_args()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(args.model, options)
    vocab = json.load(open(args.vocab))["vocab"]
    voices = {f[:-4]: np.fromfile(os.path.join(args.voices, f), np.float32).reshape(-1, 256) for f in os.listdir(args.voices)}
    rng = np.random.default_rng(args.seed)
    other = OTHER + (sentences(args.prose) if args.prose else [])
    os.makedirs(args.out, exist_ok=True)
    manifest = os.path.join(args.out, "manifest.csv")
    fresh = not os.path.exists(manifest)
    end, n = time.time() + 60 * args.minutes, 0
    with open(manifest, "a", newline="") as f:
        rows = csv.writer(f)
        if fresh:
            rows.writerow(["path", "speaker", "text", "kind"])
        while time.time() < end:
            speaker, style = style_of(voices, rng)
            changes = FOREIGN[rng.integers(len(FOREIGN))] if rng.random() < args.foreign else []
            for _ in range(4):
                source = rng.choice(3, p=args.shares)
                text, kind = (digit_text(rng), "digits") if source == 0 else word_text(rng) if source == 1 else (str(rng.choice(other)), "other")
                said = phonemes(text, str(rng.choice(ACCENTS)))
                for sound, instead in changes:
                    said = said.replace(sound, instead)
                tokens = [vocab[c] for c in said if c in vocab]
                feeds = {"tokens": np.array([[0, *tokens, 0]], np.int64), "style": style[min(len(tokens), len(style) - 1)].reshape(1, 256),
                         "speed": np.array([rng.uniform(0.8, 1.35)], np.float32)}
                sound = resample_poly(session.run(None, {k: v.astype(np.float32) if k == "style" else v for k, v in feeds.items()})[0], 1, 3)
                path = f"{args.seed}-{n:06}.flac"
                sf.write(os.path.join(args.out, path), np.clip(sound, -1, 1), 8000, subtype="PCM_16")
                rows.writerow([path, speaker, re.sub(r"[,.;]+", "", text), kind])
                n += 1
            f.flush()


if __name__ == "__main__":
    main()
