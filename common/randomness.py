"""Randomness that protects patients: from the operating system through AES, never from a seed of the run.

Torch's and NumPy's generators can be computed backwards from a few outputs, and two sites with one seed would draw the
same noise; the noise then protects nobody.
"""

import math
import os

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln

from common.keystream import LONGEST, Keystream, fresh_key

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
LARGEST_MEAN = 2.0**52
"""Of a Poisson variable: its integers still fit a double."""
SMALL_MEAN = 10.0
PIECE = 1 << 14
"""Numbers made at once: they stay in the processor's cache."""


class SecureRandom:
    """Draws of laws that mechanisms need. A fork gets a key of its own, so that two processes never share noise.

    `key` is for tests of the laws only; without it every object has its own from the operating system.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._given = key
        self._process = -1
        self._stream: Keystream

    @property
    def stream(self) -> Keystream:
        """The stream of this process; a new one long before a stream's end."""
        if self._process != os.getpid() or (not self._given and self._stream.left < LONGEST // 2):
            self._stream = Keystream(self._given or fresh_key())
            self._process = os.getpid()
        return self._stream

    def seed(self) -> int:
        """Give a seed for a generator whose numbers must be secret but need not be strong, of 63 bits."""
        return int(self.stream.words64(1)[0] >> np.uint64(1))

    def uniform(self, count: int) -> Floats:
        """Give `count` numbers strictly between 0 and 1, multiples of 2⁻⁵² shifted by half a step."""
        out = np.empty(count)
        for start in range(0, count, PIECE):
            self._fill_uniform(out[start : start + PIECE])
        return out

    def normal(self, count: int) -> Floats:
        """Give `count` standard normal numbers: √2·erf⁻¹(2u − 1) of uniform u, the inverse of the law, so |x| < 8.3."""
        out = np.empty(count)
        for start in range(0, count, PIECE):
            self._fill_normal(out[start : start + PIECE])
        return out

    def add_normal(self, values: NDArray[np.floating], deviation: float) -> None:
        """Add to `values`, [n], in place, what `normal` gives times `deviation`; only a piece of it is held at once."""
        part = np.empty(PIECE)
        for start in range(0, len(values), PIECE):
            some = values[start : start + PIECE]
            noise = part[: len(some)]
            self._fill_normal(noise)
            noise *= deviation
            some += noise

    def _fill_normal(self, part: Floats) -> None:
        self._fill_uniform(part)
        part *= 2
        part -= 1
        inside = torch.from_numpy(part)
        torch.erfinv(inside, out=inside)
        part *= math.sqrt(2)

    def _fill_uniform(self, part: Floats) -> None:
        words = np.frombuffer(self.stream.piece(part.nbytes), "<u8")
        # 52 bits and the half fill a double; with one bit more the largest number would be rounded up to 1.
        np.add(words >> np.uint64(12), 0.5, out=part)
        part *= 2.0**-52

    def laplace(self, count: int) -> Floats:
        """Give `count` Laplace numbers of scale 1 (density e^−|x|/2)."""
        u = self.uniform(count) - 0.5
        return np.asarray(-np.sign(u) * np.log1p(-2 * np.abs(u)))

    def chosen(self, count: int, probability: float) -> NDArray[np.bool_]:
        """Choose each of `count` things with `probability`, independently: Poisson sampling."""
        return np.asarray(self.uniform(count) < probability)

    def rounded(self, values: NDArray[np.floating]) -> Integers:
        """Round each value up or down at random so that its expectation is the value. Shape [n] -> int64 [n]."""
        words = self.stream.words32(len(values))
        return np.floor(values + words * 2.0**-32).astype(np.int64)

    def poisson(self, mean: float, count: int) -> Integers:
        """Give `count` Poisson numbers.

        By inversion below a mean of 10, else by transformed rejection (Hörmann 1993, PTRS). The ratio of
        probabilities is taken as a difference of small terms: ln Γ of large numbers would lose the digits.

        Raises:
            ValueError: The mean is not within 0 and 2⁵².
        """
        if not 0 <= mean <= LARGEST_MEAN:
            raise ValueError(f"the mean of a Poisson law is {mean}; allowed are 0 to 2^52")
        return self._inverted(mean, count) if mean < SMALL_MEAN else self._rejected(mean, count)

    def skellam(self, variance: float, count: int) -> Integers:
        """Give `count` differences of two Poisson numbers of mean variance/2: integers of mean 0, closed under sums."""
        return self.poisson(variance / 2, count) - self.poisson(variance / 2, count)

    def discrete_gaussian(self, sigma: float, count: int) -> Integers:
        """Give `count` integers x with probability ∝ exp(−x²/(2σ²)).

        Rejection from a discrete Laplace law of scale t = ⌊σ⌋ + 1 (Canonne, Kamath, Steinke 2020, algorithm 3);
        their exact coins are replaced by doubles, which moves each probability by about 2⁻⁵³ of itself.
        """
        scale = math.floor(sigma) + 1
        out: list[Integers] = []
        missing = count
        while missing > 0:
            tries = int(missing * 1.7) + 16
            drawn = self._discrete_laplace(scale, tries)
            accepted = self.uniform(tries) < np.exp(-((np.abs(drawn) - sigma**2 / scale) ** 2) / (2 * sigma**2))
            out.append(drawn[accepted][:missing])
            missing -= len(out[-1])
        return np.concatenate(out) if out else np.zeros(0, np.int64)

    def _discrete_laplace(self, scale: int, count: int) -> Integers:
        """Differences of two geometric numbers of ratio e^(−1/t) have P(x) ∝ e^(−|x|/t)."""
        first, second = (np.floor(-scale * np.log(self.uniform(count))) for _ in range(2))
        return np.asarray(first - second, np.int64)

    def _inverted(self, mean: float, count: int) -> Integers:
        most = int(mean + 40 * math.sqrt(mean) + 60)
        law = np.exp(np.arange(most) * np.log(mean or 1e-300) - mean - gammaln(np.arange(1, most + 1)))
        return np.asarray(np.searchsorted(np.cumsum(law), self.uniform(count)), np.int64)

    def _rejected(self, mean: float, count: int) -> Integers:
        b = 0.931 + 2.53 * math.sqrt(mean)
        a = -0.059 + 0.02483 * b
        inverse, v_r = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
        out: list[Integers] = []
        missing = count
        while missing > 0:
            tries = int(missing * 1.3) + 16
            u, v = self.uniform(tries) - 0.5, self.uniform(tries)
            us = 0.5 - np.abs(u)
            k = np.floor((2 * a / us + b) * u + mean + 0.43)
            sure = (us >= 0.07) & (v <= v_r)
            possible = (k >= 0) & ((us >= 0.013) | (v <= us))
            bound = np.log(v) + np.log(inverse) - np.log(a / us**2 + b)
            accepted = sure | (possible & (bound <= _log_poisson(np.maximum(k, 0), mean)))
            out.append(k[accepted][:missing].astype(np.int64))
            missing -= len(out[-1])
        return np.concatenate(out) if out else np.zeros(0, np.int64)


def _log_poisson(k: Floats, mean: float) -> Floats:
    """ln P(K = k) = k·ln(λ/k) + k − λ − ½ln(2πk) − 1/(12k) + 1/(360k³), exact to 1e-9 from k = 8 on."""
    exact = k * math.log(mean) - mean - gammaln(k + 1)
    big = np.maximum(k, 8.0)
    d = mean - big
    near = big * np.log1p(d / big) - d - 0.5 * np.log(2 * math.pi * big) - 1 / (12 * big) + 1 / (360 * big**3)
    return np.where(k < 8, exact, near)
