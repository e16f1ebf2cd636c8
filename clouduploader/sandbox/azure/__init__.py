"""An emulated Azure for the sandbox: see `cloud`."""
