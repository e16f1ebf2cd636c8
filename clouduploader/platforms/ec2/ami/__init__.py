"""The AMI: found by its name, compared with what an upload asks for, registered from a snapshot."""
