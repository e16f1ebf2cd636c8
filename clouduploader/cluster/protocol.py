"""What server and hosts agree on."""

VERSION = 1
"""Of what they say to each other. A host says it with each claim; a server takes those that it knows."""
KNOWN = (1,)
"""The versions that this server takes."""
TASK = "clouduploader.upload"
"""Celery's name for the task; its arguments are a job's number, an attempt's, and the server's URL."""
QUEUE_PREFIX = "clouduploader."
"""Of the queues' names at the broker."""
MAX_PIECE_BYTES = 1 << 20
"""The most of a log or journal that a host sends at once."""
