"""What the cells of one process share: a value is made once for the settings that it follows from.

Only the cells of a multirun share (studies/multirun.py opens it): a single run makes everything itself.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from typing import Any, TypeVar

T = TypeVar("T")

LIMIT = 2 * 2**30  # bytes of all that is kept: weights of half a billion parameters
SMALL = 2**24  # bytes that a value without weights counts for; tables stand on disk

_sharing: ContextVar[bool] = ContextVar("sharing", default=False)
_kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()  # values and their bytes, the least recently used first


@contextmanager
def sharing(on: bool = True) -> Iterator[None]:
    """Let what is made within be kept, and found again by a later cell of this process; or neither."""
    before = _sharing.set(on)
    try:
        yield
    finally:
        _sharing.reset(before)


def is_sharing() -> bool:
    """Whether this is a cell of a multirun, which others may follow in this process."""
    return _sharing.get()


def once(
    kind: str,
    settings: Callable[[], Any],
    make: Callable[[], T],
    *,
    copy: Callable[[T], T] = deepcopy,
    keep: Callable[[T], bool] = lambda value: True,
    n_bytes: Callable[[T], int] = lambda value: SMALL,
) -> T:
    """The value that a kind's settings come to: made, or a copy of what an earlier cell has made.

    settings gives plain values, all that the value follows from. keep says of a value just made whether that is so:
    one that was drawn at random follows from the seed, too.
    """
    if not is_sharing():
        return make()
    key = hashlib.sha256(json.dumps([kind, settings()], sort_keys=True).encode()).hexdigest()
    if key in _kept:
        _kept.move_to_end(key)
        return copy(_kept[key][0])
    value = make()
    if keep(value) and (size := n_bytes(value)) <= LIMIT:
        _kept[key] = copy(value), size
        while sum(each for _, each in _kept.values()) > LIMIT:
            _kept.popitem(last=False)
    return value


def same(value: T) -> T:
    """The value itself, as a copy of what nobody changes."""
    return value


def forget() -> None:
    """Keep nothing any longer."""
    _kept.clear()
