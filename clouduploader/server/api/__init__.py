"""The JSON API, `/api/v1`: jobs, images, accounts, platforms, tokens and the service, a module each."""
