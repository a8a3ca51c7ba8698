"""Birds for nodes without a name."""

from collections import Counter

from node.store.names import BIRDS, bird_name
from protocol.identity import Identity
from protocol.limits import NAME_BYTES_MAX


def test_a_node_keeps_its_bird() -> None:
    assert bird_name(Identity(bytes(32)).node) == "avocet"


def test_birds_are_distinct_plain_words_that_fit() -> None:
    assert len(set(BIRDS)) == len(BIRDS) >= 100
    assert all(bird.isascii() and bird.isalpha() and bird.islower() and len(bird) <= NAME_BYTES_MAX for bird in BIRDS)


def test_many_nodes_have_many_birds() -> None:
    drawn = Counter(bird_name(Identity(number.to_bytes(32, "big")).node) for number in range(300))
    assert len(drawn) > 100
