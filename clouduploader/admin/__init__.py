"""The other use cases, in the same form: set-up, keys, images, platforms, accounts."""
