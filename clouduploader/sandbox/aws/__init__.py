"""An emulated AWS, by moto and our own EBS direct APIs."""
