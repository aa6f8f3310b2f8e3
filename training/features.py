"""The front-end of FEATURES.md in numpy: 8 kHz waveform to 32 log-mel bands at 100 Hz under a causal AGC."""
import numpy as np

RATE, WINDOW, HOP, FFT, BANDS = 8000, 200, 80, 256, 32
AGC_START, ATTACK, RELEASE, FLOOR = -5.0, 0.3, 0.0046, 1e-6
HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def bank(warp: float = 1.0) -> np.ndarray:
    """`[129][32]` triangles; `warp` scales the band edges in Hz (vocal-tract warp, training only)."""
    edges = 700 * (10 ** (np.linspace(2595 * np.log10(1 + 125 / 700), 2595 * np.log10(1 + 3700 / 700), BANDS + 2) / 2595) - 1)
    edges = np.minimum(edges * warp, np.linspace(3900, 4000, BANDS + 2)) if warp != 1.0 else edges
    f = np.arange(FFT // 2 + 1)[:, None] * RATE / FFT
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((f - left) / (middle - left), (right - f) / (right - middle))).astype(np.float32)


BANK = bank()
# The windowed Fourier transform as one matrix: cosines, then sines.
ANGLES = 2 * np.pi / FFT * np.arange(WINDOW)[:, None] * np.arange(FFT // 2 + 1)
FOURIER = (HANN[:, None] * np.concatenate([np.cos(ANGLES), np.sin(ANGLES)], 1)).astype(np.float32)


def band_powers(waves: np.ndarray, banks: np.ndarray | None = None) -> np.ndarray:
    """`[batch][samples]` f32 in +-1 to `[batch][frames][32]` powers; `banks` gives each row its own triangles."""
    frames = np.lib.stride_tricks.sliding_window_view(waves, WINDOW, axis=-1)[:, ::HOP]
    spectrum = (frames.reshape(-1, WINDOW) @ FOURIER).reshape(*frames.shape[:2], -1)
    power = spectrum[..., : FFT // 2 + 1] ** 2 + spectrum[..., FFT // 2 + 1 :] ** 2
    return np.matmul(power, BANK if banks is None else banks)


def agc(powers: np.ndarray, start: np.ndarray | float = AGC_START) -> np.ndarray:
    """Band powers to features, level by a causal AGC whose state starts at `start`."""
    level = np.log(powers.mean(-1) + FLOOR)
    p = np.broadcast_to(np.asarray(start, np.float32), level.shape[:1]).copy()
    track = np.empty_like(level)
    for t in range(level.shape[1]):
        e = level[:, t]
        p = np.where(e > p, p + ATTACK * (e - p), np.maximum(p - RELEASE, AGC_START))
        track[:, t] = p
    return np.clip((np.log(powers + FLOOR) - track[..., None]) / 4 + 2, -1, 4).astype(np.float32)


def features(wave: np.ndarray) -> np.ndarray:
    """Features of one i16 or f32 waveform, `[frames][32]`."""
    wave = wave.astype(np.float32) / 32768 if wave.dtype == np.int16 else wave.astype(np.float32)
    return agc(band_powers(wave[None]))[0]
