"""HTTP over the spool and the commands: what OBS's upload server is, and the only user of aiohttp."""
