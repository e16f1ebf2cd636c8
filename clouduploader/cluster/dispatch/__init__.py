"""The side of the server: which job is published next, and who has a lease for one."""
