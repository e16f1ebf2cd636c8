"""The use cases, one file each: they take objects, return frozen dataclasses and print nothing."""
