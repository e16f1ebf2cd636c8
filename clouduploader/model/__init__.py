"""Data types without input or output: jobs and disks, and the XML that they travel in."""
