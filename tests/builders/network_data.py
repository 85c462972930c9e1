"""Data of the test networks: drawn faces, spoken keywords, Shuttle measurements, enlarged digits.

Whatever is fetched comes from Debian's archive, never from elsewhere."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tests.builders.arrays import Array

WORDS = ("yes", "no", "stop", "go")
ACCENTS = ("en-us", "en-gb")
SAMPLES_PER_S, FRAMES, COEFFICIENTS = (
    22050,
    49,
    10,
)  # espeak-ng's rate; features as MLPerf Tiny's keyword spotting


class UnavailableError(Exception):
    """What a test network needs is not on this machine and cannot be had."""


def shares(n: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Indices of a random 60 % for training, 20 % for validation, 20 % for test."""
    order = np.random.default_rng(seed).permutation(n)
    return order[: n * 6 // 10], order[n * 6 // 10 : n * 8 // 10], order[n * 8 // 10 :]


# --- images ---------------------------------------------------------------------------------------


def large_digits(samples: int, seed: int = 0) -> tuple[Array, Array]:
    """scikit-learn's digits as tinted 96x96x3 images in [-1, 1], and their labels."""
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(seed)
    index = rng.permutation(len(digits.target))[:samples]
    images = np.kron(digits.images[index] / 16, np.ones((12, 12)))[..., None] * rng.uniform(0.5, 1, (samples, 1, 1, 3))
    return (images * 2 - 1).astype(np.float32), digits.target[index].astype(np.int64)


def faces(samples: int, seed: int = 0) -> Array:
    """Drawn faces, (n, 64, 64, 1) in [-1, 1]: oval, hair, brows, eyes, nose and mouth of random shape,
    light and noise."""
    rng = np.random.default_rng(seed)
    return np.stack([_face(rng) for _ in range(samples)])[..., None].astype(np.float32) * 2 - 1


def _face(rng: np.random.Generator) -> Array:
    y, x = (np.mgrid[:64, :64] - 32) / 32 - rng.normal(0, 0.06, (2, 1, 1))
    image = np.full((64, 64), rng.uniform(0.05, 0.5))
    width, skin, dark = rng.uniform(0.6, 0.8), rng.uniform(0.5, 0.85), rng.uniform(0.05, 0.3)
    image[(x / width) ** 2 + (y / 0.95) ** 2 < 1] = skin
    image[((x / width) ** 2 + (y / 0.95) ** 2 < 1) & (y < rng.uniform(-0.75, -0.5))] = dark
    opening, smile, slant = rng.uniform(0.03, 0.14), rng.uniform(-0.35, 0.35), rng.uniform(-0.4, 0.4)
    for side in (-1, 1):
        eye_x = side * rng.uniform(0.26, 0.32)
        eye = ((x - eye_x) / 0.14) ** 2 + ((y + 0.2) / opening) ** 2 < 1
        image[eye] = 0.95
        image[eye & ((x - eye_x) ** 2 + (y + 0.2) ** 2 < 0.06**2)] = dark
        brow = np.abs(y + 0.42 - slant * side * (x - eye_x)) < 0.035
        image[brow & (np.abs(x - eye_x) < 0.18)] = dark
    image[(np.abs(x) < 0.03 + 0.05 * (y + 0.1)) & (y > -0.1) & (y < 0.15)] *= 0.8
    mouth = np.abs(y - 0.5 + smile * (x**2 / 0.08 - 1) * 0.3) < rng.uniform(0.02, 0.12)
    image[mouth & (np.abs(x) < rng.uniform(0.2, 0.34))] = dark
    light = 1 + rng.uniform(-0.3, 0.3) * x + rng.uniform(-0.2, 0.2) * y
    return np.asarray(np.clip(image * light + rng.normal(0, 0.03, image.shape), 0, 1))


# --- keywords (synthetic speech) ------------------------------------------------------------------


def keywords() -> tuple[Array, Array, Array]:
    """MFCCs (n, 49, 10, 1) of WORDS spoken by each voice variant of espeak-ng in two accents, the labels,
    and the number of the voice, to hold out voices. Raises UnavailableError."""
    espeak = _espeak()
    listing = subprocess.run([espeak, "--voices=variant"], capture_output=True, text=True, check=True).stdout
    voices = sorted(set(re.findall(r"!v/(\S+)", listing)))
    said = [
        (_mfcc(samples), label, voice)
        for voice, name in enumerate(voices)
        for accent in ACCENTS
        for label, word in enumerate(WORDS)
        if len(samples := _speak(espeak, f"{accent}+{name}", word)) > SAMPLES_PER_S // 10
    ]
    features = np.stack([features for features, _, _ in said])[..., None].astype(np.float32)
    return features, np.array([label for _, label, _ in said]), np.array([voice for _, _, voice in said])


def _espeak() -> str:
    if shutil.which("espeak-ng") is None and os.geteuid() == 0:
        apt("install", "-y", "--no-install-recommends", "espeak-ng")
    found = shutil.which("espeak-ng")
    if found is None:
        raise UnavailableError("espeak-ng is not installed; apt-get install espeak-ng")
    return found


def _speak(espeak: str, voice: str, word: str) -> Array:
    """The word as float samples in [-1, 1]; a variant that espeak-ng refuses says nothing."""
    said = subprocess.run([espeak, "-v", voice, "--stdout", word], capture_output=True, check=False).stdout
    return np.frombuffer(said[44:][: len(said[44:]) // 2 * 2], "<i2") / 32768


def _mfcc(samples: Array) -> Array:
    """49 frames of 40 ms every 20 ms, 40 log mel bands, the first 10 coefficients of their DCT,
    standardised."""
    from scipy.fft import dct

    hop, length = SAMPLES_PER_S // 50, 1024
    padded = np.zeros(hop * (FRAMES - 1) + length)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)]
    frames = np.stack([padded[i * hop : i * hop + length] for i in range(FRAMES)]) * np.hanning(length)
    power = np.abs(np.fft.rfft(frames)) ** 2
    coefficients = dct(np.log(power @ _mel_bands(length).T + 1e-3), norm="ortho")[:, :COEFFICIENTS]
    return np.asarray((coefficients - coefficients.mean(0)) / (coefficients.std(0) + 1e-3))


def _mel_bands(length: int, bands: int = 40) -> Array:
    """Triangles (bands, length // 2 + 1), evenly spaced on the mel scale from 20 Hz to 8 kHz."""
    low, high = 2595 * np.log10(1 + np.array([20, 8000]) / 700)
    mel = np.linspace(low, high, bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hz = np.fft.rfftfreq(length, 1 / SAMPLES_PER_S)
    rising = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None))


# --- Shuttle --------------------------------------------------------------------------------------


def shuttle() -> tuple[Array, Array]:
    """Statlog Shuttle from Debian's r-cran-mlbench: 58,000 rows of 9 standardised values, and 1 where the
    class is not the normal one (Rad.Flow). The first 43,500 rows are the training set. Raises
    UnavailableError."""
    import pyreadr  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        apt("download", "r-cran-mlbench", cwd=folder)
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), folder], check=True)
        (file,) = Path(folder).rglob("Shuttle.rda")
        frame = pyreadr.read_r(str(file))["Shuttle"]
    values = frame.drop(columns="Class").to_numpy(np.float64)
    normal = (frame["Class"] == "Rad.Flow").to_numpy()
    reference = values[:43_500][normal[:43_500]]
    standard = (values - reference.mean(0)) / reference.std(0)
    return np.clip(standard, -10, 10).astype(np.float32), (~normal).astype(np.int64)


def apt(*arguments: str, cwd: str | None = None) -> None:
    """apt-get, after an update where the package lists are missing or old. Raises UnavailableError.

    One at a time: test files that run beside each other would find its lists locked."""
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"there is no apt-get for: apt-get {' '.join(arguments)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    sandbox = ("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ()  # may not write into a temporary folder
    with (Path(tempfile.gettempdir()) / "autocompress-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for attempt in (arguments, ("update",), arguments):
            command = ["apt-get", "-qq", *sandbox, *attempt]
            done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
            if attempt is arguments and done.returncode == 0:
                return
    raise UnavailableError(f"apt-get {' '.join(arguments)} failed: {' '.join(done.stderr.split())[:200]}")
