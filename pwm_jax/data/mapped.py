"""Arrays in files that are mapped into memory, of which windows are read at random."""

from __future__ import annotations

import mmap

import numpy as np


def mapping_of(array: np.ndarray) -> mmap.mmap:
    """The mapping that an array, or what it is a view of, lies in."""
    base: object = array
    while not isinstance(base, mmap.mmap):
        base = getattr(base, "base")  # noqa: B009, what NumPy says of it is of arrays alone
    return base


def spans(array: np.ndarray, first: np.ndarray, rows: int) -> list[tuple[int, int]]:
    """Where rows first[i] .. first[i] + rows - 1 of `array` [R, ...] lie in its mapping: start, rounded down to a page, and length."""
    mapping = mapping_of(array)
    begin = array.__array_interface__["data"][0] - np.frombuffer(mapping, np.uint8).__array_interface__["data"][0]
    starts = begin + first * array.strides[0]
    ends = np.minimum(starts + rows * array.strides[0], len(mapping))
    pages = starts - starts % mmap.PAGESIZE
    return list(zip(pages.tolist(), (ends - pages).tolist(), strict=True))


def announce(array: np.ndarray, first: np.ndarray, rows: int) -> None:
    """Let the kernel begin to read `rows` rows of `array` [R, ...] from each of first [B] on.

    The disk then has all of them to fetch at once, where one that is only looked at is waited for before the next is asked for.
    """
    mapping = mapping_of(array)
    for start, length in spans(array, first, rows):
        mapping.madvise(mmap.MADV_WILLNEED, start, length)
