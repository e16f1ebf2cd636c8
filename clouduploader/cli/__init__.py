"""The command line: the only place where click and rich are known, and where anything is printed."""
