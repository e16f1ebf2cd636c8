"""The EBS direct APIs, strictly, over https with a certificate of the sandbox's own CA.

Shapes, bounds, error codes and their reasons are those of botocore's model of `ebs` (2019-11-02);
behaviour is what the EBS user guide says under "EBS direct APIs".

Where the documentation says nothing, the sandbox takes the side that is harder for a client: a second
CompleteSnapshot is refused, and a client token gives the answer of its first StartSnapshot even when that
snapshot is gone. ListChangedBlocks and incremental snapshots (ParentSnapshotId) are not there.
"""
