"""What is on disk: settings, keys, accounts, target data, journals, logs, the spool."""
