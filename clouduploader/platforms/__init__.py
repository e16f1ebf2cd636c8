"""The platforms that come with clouduploader."""
