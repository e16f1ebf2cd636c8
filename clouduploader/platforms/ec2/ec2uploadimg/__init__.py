"""Uploads by ec2uploadimg, which boots a helper instance."""
