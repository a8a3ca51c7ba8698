"""Everything that touches the world: the daemon, its transports, models, API and command line."""
