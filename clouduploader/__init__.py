"""Turns a disk image from a build service into a bootable image in a user's cloud account."""

__version__ = "0.1.0"
