"""The same members in a world that we own: virtual clock, network, models, faults. One seed decides everything."""
