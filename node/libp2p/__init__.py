"""The only package that imports libp2p."""
