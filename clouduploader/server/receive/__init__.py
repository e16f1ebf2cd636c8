"""Receive images: as the bodies of OBS's route, or in pieces by the API."""
