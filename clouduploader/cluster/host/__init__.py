"""The side of a host: it claims jobs, uploads their images, and reports."""
