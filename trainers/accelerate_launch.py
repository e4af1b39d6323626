"""What `accelerate launch` says in the environment when nobody has said anything, and what we make of it.

Without a flag or a configuration it writes the precision "no" and, on a machine where it was not told that there is no
GPU, one thread, as if someone had asked for them (accelerate 1.15: commands/launch.py, utils/launch.py). Neither can be
told from the same value that was typed.
"""

import os


def is_launched() -> bool:
    """Whether this process was started by accelerate launch, or by one that was."""
    return "ACCELERATE_DYNAMO_MODE" in os.environ  # it always writes that, and nobody has a reason to type it


def asks_for_precision() -> bool:
    """Whether accelerate was told a precision: any by the variable itself, all but "no" by its launcher.

    DeepSpeed's own file may hold one, too, which accelerate lets no other contradict.
    """
    said = os.environ.get("ACCELERATE_MIXED_PRECISION")
    of_nobody = said is None or (said == "no" and is_launched())
    return not of_nobody or "ACCELERATE_DEEPSPEED_CONFIG_FILE" in os.environ
