"""Python's search for garbage in cycles, which is of no use while libraries are imported: what they make stays.

It would look through millions of objects again and again, a quarter of the time that a command takes to its first
update, and once more at the end.
"""

import atexit
import gc

SELDOM = (100_000, 50, 1000)
_usual = gc.get_threshold()


def search_seldom() -> None:
    """From the start of a command, until search_as_usual; and not at its end, when all memory goes back anyway."""
    gc.set_threshold(*SELDOM)
    atexit.register(gc.freeze)


def search_as_usual() -> None:
    """Once the libraries are there, which each command says: leave out what is, and search what comes."""
    if gc.get_threshold() == SELDOM:
        gc.freeze()
        gc.set_threshold(*_usual)
