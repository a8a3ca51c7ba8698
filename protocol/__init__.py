"""What crosses the wire between two nodes, as pure functions and values: no clock, no I/O, no dice of its own."""

PROTOCOL_VERSION = 1
