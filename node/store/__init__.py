"""What a node keeps on disk: its folders, its keys, and the lock that makes it the only one there."""
