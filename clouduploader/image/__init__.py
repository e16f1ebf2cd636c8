"""Disk images: what a file is, what is in it, and its raw disk as blocks or as a stream."""
