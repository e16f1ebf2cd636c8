"""The EBS direct way into EC2: blocks go straight into a snapshot, sealed by a checksum over all of them."""
