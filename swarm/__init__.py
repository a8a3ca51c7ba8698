"""How one member of the swarm decides: `Member.handle(event, now) -> effects`, without clock, I/O or dice of its own."""
