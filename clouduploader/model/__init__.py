"""Data types without input or output: jobs, disks and their formats, and the XML that they travel in."""
