"""One upload, from request to result."""
