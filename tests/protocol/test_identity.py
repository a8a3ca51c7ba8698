"""Node ids as text, and signatures that every node judges alike."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.identity import Identity, NodeId, node_from_text, node_text, short_text, verify
from tests.strategies import ADA, BOB

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
ORDER = 2**252 + 27742317777372353535851937790883648493  # Of the base point of edwards25519 (RFC 8032, section 5.1).
# Encodings of points of small order: neutral, order 2, order 4, order 8, each with both signs, and some not reduced.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@given(st.binary(min_size=32, max_size=32).map(NodeId))
def test_a_node_id_survives_as_text(node: NodeId) -> None:
    """[IDN-2] [IDN-3] And is recognised at a glance."""
    text = node_text(node)
    assert text.startswith("12D3KooW")
    assert node_from_text(text) == node


def test_the_peer_id_is_libp2ps() -> None:
    """[IDN-2] A pair from elsewhere: the key of RFC 8032's first test, and what libp2p's own code makes of it."""
    identity = Identity(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert identity.node.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert node_text(identity.node) == "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV"


@given(st.text(alphabet=BASE58, max_size=70) | st.text(max_size=20))
def test_garbage_is_not_a_peer_id(text: str) -> None:
    """[IDN-3] One error, and never a node id by accident."""
    with pytest.raises(ValueError, match="not "):
        node_from_text(text)


@settings(max_examples=300)
@given(st.integers(0, 51), st.sampled_from(BASE58))
def test_a_peer_id_with_another_character_is_another_node_or_none(at: int, character: str) -> None:
    """[IDN-3] Text and node correspond one to one."""
    text = node_text(ADA.node)
    changed = text[:at] + character + text[at + 1 :]
    try:
        node = node_from_text(changed)
    except ValueError:
        return
    assert node_text(node) == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1" + node_text(ADA.node),
        node_text(ADA.node) + "1",
        node_text(ADA.node)[1:],
        node_text(ADA.node) + " ",
        node_text(NodeId(ADA.node[:31])),
        node_text(NodeId(ADA.node + b"\0")),
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",  # A hash of an RSA key.
        "16Uiu2HAmDQpPBrPFSoWVYNKTwbSW4ew1ez8cBqcsqrPv58wvaJvb",  # secp256k1.
        "1" * 65,
        "0" + node_text(ADA.node)[1:],
    ],
)
def test_other_ids_are_refused(text: str) -> None:
    """[IDN-3] Only Ed25519 keys are nodes."""
    with pytest.raises(ValueError, match="not "):
        node_from_text(text)


def test_short_text_is_for_people() -> None:
    text = node_text(ADA.node)
    assert short_text(ADA.node) == f"12D3…{text[-4:]}"


def test_a_signature_holds_for_its_signer_and_its_bytes_alone() -> None:
    """[IDN-1] [IDN-4] And so for any single changed bit."""
    signature = ADA.sign(b"data")
    assert verify(ADA.node, b"data", signature)
    assert not verify(BOB.node, b"data", signature)
    assert not verify(ADA.node, b"date", signature)
    for bit in range(512):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify(ADA.node, b"data", bytes(changed))


@pytest.mark.parametrize(
    ("node", "signature"), [(b"", bytes(64)), (bytes(31), bytes(64)), (bytes(32), b""), (bytes(32), bytes(65))]
)
def test_keys_and_signatures_of_other_lengths_are_refused(node: bytes, signature: bytes) -> None:
    """[IDN-4] Without an error of another kind."""
    assert not verify(NodeId(node), b"data", signature)


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_no_key_of_small_order_has_signed_anything(key: str) -> None:
    """[IDN-4] Under such a key an R of small order with S = 0 satisfies the equation for many messages."""
    for message in range(64):
        for point in SMALL_ORDER:
            signature = bytes.fromhex(point) + bytes(32)
            assert not verify(NodeId(bytes.fromhex(key)), bytes([message]), signature)


def test_a_second_form_of_a_signature_is_refused() -> None:
    """[IDN-4] S and S + L satisfy the same equation; only the smaller is a signature."""
    signature = ADA.sign(b"data")
    larger = int.from_bytes(signature[32:], "little") + ORDER
    assert not verify(ADA.node, b"data", signature[:32] + larger.to_bytes(32, "little"))
