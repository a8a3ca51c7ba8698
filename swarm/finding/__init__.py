"""Who can do what: neighbours, contacts, gossip of adverts, and the index of capabilities that ages."""
