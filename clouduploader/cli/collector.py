"""Garbage collection: hardly any while the program starts, as usual in a service."""

import gc

START_OBJECTS = 200_000  # more than all that stay until the first request to the cloud, some 130,000 with a large SDK
SERVICE_THRESHOLDS = gc.get_threshold()  # as the interpreter has it


def collect_rarely() -> None:
    """Let the collector wait for many objects.

    Nearly all that is made at the start, modules and the models of an SDK, lives to the end. With Python's own 700
    objects the collector looks through it again and again, for a tenth of the time until the first request.
    """
    gc.set_threshold(START_OBJECTS)


def collect_as_usual() -> None:
    """Let the collector work as Python does it, but leave alone what is there: for a process that runs for days."""
    gc.freeze()
    gc.set_threshold(*SERVICE_THRESHOLDS)
