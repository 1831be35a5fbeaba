"""The endless stream of training samples, as pure functions of the seed and a position.

There is no generator whose state would have to be saved, and nothing to fast-forward: which samples make up global
batch k is computed from k. The number of processes and workers does not appear.

    epoch e     M indices in an order drawn from (seed, e)
    stream      epoch 0, epoch 1, ... one behind the other; position p is element p % M of epoch p // M
    window w    positions w * W to (w + 1) * W, where W is M rounded up to whole batches; planned at once
    batch k     row k % (W / B) of window k // (W / B)
    draw n      the sample at place j of batch k is draw n = k * B + j; its augmentation is seeded from (seed, n)

With groups (such as landscape and portrait) a window's elements are dealt to the groups in the order of the stream,
and a batch is emitted whenever a group has B of them; what is left over at the end fills the last batches of the
window, one for two groups. Nothing is dropped, nothing is carried over to the next window.

Axes: N samples in the data set, M elements in an epoch, B samples in a global batch, W elements in a window.
"""

import functools
import hashlib
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

ORDER, OFFSET, REPLACEMENT = 0, 1, 2  # what a draw is for, so that equal numbers give unrelated draws


class TrainingStream:
    """Which samples make up each global batch of an endless training.

    Args:
        size: N, samples in the data set.
        batch_size: B, samples in a global batch.
        seed: 0 or greater.
        groups: (N,) integers; batches hold samples of one group, but for the ones that close a window.
        repeat_factors: (N,) how often each sample appears in an epoch on average, at least 0. An epoch has
            M = round(sum) elements; where a factor is no whole number, chance decides anew in each epoch.
        shuffle: False keeps the data set's order.

    Raises:
        ValueError: if a number is out of its range or a length is not N.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        *,
        groups: Sequence[int] | NDArray[np.integer] | None = None,
        repeat_factors: Sequence[float] | NDArray[np.floating] | None = None,
        shuffle: bool = True,
    ) -> None:
        if size < 1:
            raise ValueError("the data set is empty: there is nothing to draw samples from")
        if batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, got {batch_size}")
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"the seed must be an integer of at least 0, got {seed!r}")
        self.size, self.batch_size, self.seed, self.shuffle = size, batch_size, seed, shuffle
        self.groups = None if groups is None else _checked(np.asarray(groups, dtype=np.int64), size, "groups")
        self._shares = None if repeat_factors is None else _shares(repeat_factors, size)
        self.epoch_length = size if self._shares is None else round(float(self._shares.sum()))
        self.batches_per_window = -(-self.epoch_length // batch_size)
        self._planned: tuple[int, Indices] | None = None

    def epoch(self, number: int) -> Indices:
        """Return the order of one epoch, (M,) indices into the data set."""
        if not self.shuffle:
            return np.arange(self.size) if self._shares is None else self._resample(np.arange(self.size), number)
        order = _permutation(self.size, self.seed, ORDER, number)
        if self._shares is None:
            return order
        drawn = self._resample(order, number)
        return drawn[_permutation(len(drawn), self.seed, ORDER, number, 1)]

    def window(self, number: int) -> Indices:
        """Plan a window: (W / B, B) indices into the data set, a row for each global batch."""
        length, size = self.epoch_length, self.batch_size
        start = number * self.batches_per_window * size
        stop = start + self.batches_per_window * size
        first, last = start // length, (stop - 1) // length
        elements = np.concatenate([self.epoch(e) for e in range(first, last + 1)])
        elements = elements[start - first * length : stop - first * length]
        if self.groups is None:
            return elements.reshape(-1, size)
        return elements[_deal(self.groups[elements], size)]

    def batch(self, number: int) -> Indices:
        """Return global batch ``number``: (B,) indices into the data set.

        The plan of its window is kept for the next call.
        """
        window, row = divmod(number, self.batches_per_window)
        if self._planned is None or self._planned[0] != window:
            self._planned = (window, self.window(window))
        return self._planned[1][row]

    def draws(self, batch: int, part: slice = slice(None)) -> list[tuple[int, int]]:
        """Return (draw number, index) of a global batch, or of a part of it such as one rank's."""
        first = batch * self.batch_size
        return [(first + j, int(index)) for j, index in enumerate(self.batch(batch))][part]

    def batches(self, start: int = 0, part: slice = slice(None)) -> Iterator[list[tuple[int, int]]]:
        """Go through the batches from number ``start`` on, without end; see `draws`."""
        while True:
            yield self.draws(start, part)
            start += 1

    def replacement(self, draw: int, attempt: int, index: int) -> int:
        """Choose the sample that stands in where ``index`` cannot be used; of the same group where there are groups.

        Args:
            draw: the draw's number.
            attempt: counts the replacements of this draw, from 1.
            index: the sample that was planned.
        """
        number = hash_words(self.seed, draw, attempt, REPLACEMENT)[0]
        if self.groups is None:
            return number % self.size
        members = self._members[int(self.groups[index])]
        return int(members[number % len(members)])

    def order_sha256(self) -> str:
        """Return a hash of what, besides size, batch size and seed, decides the order."""
        digest = hashlib.sha256(b"shuffled" if self.shuffle else b"in order")
        for array in (self.groups, self._shares):
            digest.update(b"none" if array is None else array.tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def _members(self) -> dict[int, Indices]:
        assert self.groups is not None
        return {int(g): np.flatnonzero(self.groups == g) for g in np.unique(self.groups)}

    def _resample(self, order: Indices, epoch: int) -> Indices:
        """Repeat each element about as often as its share says, M in total (systematic resampling).

        The shares lie one behind the other on a line of length M; one draw u in [0, 1) places a comb of teeth at u, u
        + 1, ... and each element appears once for each tooth that falls on it: floor(share) or ceil(share) times,
        share on average.

        Source: https://en.wikipedia.org/wiki/Systematic_sampling, unequal probabilities.
        """
        assert self._shares is not None
        edges = np.cumsum(self._shares[order])
        edges *= self.epoch_length / edges[-1]
        edges[-1] = self.epoch_length
        offset = hash_words(self.seed, epoch, OFFSET)[0] / 2**64
        teeth = np.maximum(np.ceil(edges - offset), 0).astype(np.int64)
        return np.repeat(order, np.diff(teeth, prepend=0))

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_planned": None}


def hash_words(*numbers: int) -> tuple[int, int, int, int]:
    """Turn integers into four unrelated 64-bit words, the same ones everywhere and always."""
    content = b"".join(struct.pack("<Q", number & 0xFFFFFFFFFFFFFFFF) for number in numbers)
    return struct.unpack("<4Q", hashlib.blake2b(content, digest_size=32).digest())


def _permutation(size: int, *key: int) -> Indices:
    """Draw a permutation from a key.

    Sorting raw bits, because numpy promises that a bit generator's raw bits never change between versions; it does not
    promise so for ``permutation``.
    """
    bits = np.random.PCG64(np.random.SeedSequence(list(key))).random_raw(size)
    return np.argsort(bits, kind="stable")


def _deal(groups: Indices, batch_size: int) -> Indices:
    """Deal positions to batches of one group each: (len(groups) / B, B) positions.

    Args:
        groups: the group of each position, a multiple of ``batch_size`` long.
        batch_size: B.
    """
    full, ends, rest = [], [], []
    for group in np.unique(groups):
        positions = np.flatnonzero(groups == group)
        whole = len(positions) // batch_size * batch_size
        rows = positions[:whole].reshape(-1, batch_size)
        full.append(rows)
        ends.append(rows[:, -1])
        rest.append(positions[whole:])
    order = np.argsort(np.concatenate(ends), kind="stable")
    return np.concatenate([np.concatenate(full)[order], np.sort(np.concatenate(rest)).reshape(-1, batch_size)])


def _checked(array: NDArray, size: int, name: str) -> NDArray:
    if array.shape != (size,):
        raise ValueError(f"{name} must have one value for each of the {size} samples, got shape {array.shape}")
    return array


def _shares(factors: Sequence[float] | NDArray[np.floating], size: int) -> NDArray[np.float64]:
    shares = _checked(np.asarray(factors, dtype=np.float64), size, "repeat_factors")
    if not np.isfinite(shares).all() or (shares < 0).any() or round(float(shares.sum())) < 1:
        raise ValueError(f"repeat_factors must be 0 or greater and add up to at least 1, got a sum of {shares.sum()}")
    return shares
