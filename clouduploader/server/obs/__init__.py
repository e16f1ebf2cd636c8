"""OBS's own routes, and the documents that they answer with."""
