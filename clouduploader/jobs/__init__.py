"""Use cases on jobs, one module each: they take objects, return frozen dataclasses and print nothing."""
