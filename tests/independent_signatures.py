"""Signatures by the rule of SPEC.md, section 3, in plain arithmetic: slow, and independent of every library."""

from hashlib import sha512

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
Point = tuple[int, int, int, int]
NEUTRAL: Point = (0, 1, 1, 0)


def add(a: Point, b: Point) -> Point:
    """The sum of two points in extended coordinates (RFC 8032, section 5.1.4)."""
    e, f = (a[1] - a[0]) * (b[1] - b[0]), (a[1] + a[0]) * (b[1] + b[0])
    c, g = 2 * a[3] * b[3] * D, 2 * a[2] * b[2]
    h, i, j, k = f - e, g - c, g + c, f + e
    return h * i % P, j * k % P, i * j % P, h * k % P


def times(scalar: int, point: Point) -> Point:
    """A multiple of a point."""
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def point_bytes(point: Point) -> bytes:
    """The canonical encoding of a point."""
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def point_of(data: bytes) -> Point | None:
    """The point of a canonical encoding, or None."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number % 2**255
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or x * x % P != square or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


_Y = 4 * pow(5, P - 2, P) % P
BASE = point_of(_Y.to_bytes(32, "little"))
assert BASE is not None


def holds(node: bytes, data: bytes, signature: bytes) -> bool:
    """IDN-4."""
    assert BASE is not None
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    a, r_point = point_of(node), point_of(r)
    if len(signature) != 64 or a is None or r_point is None or s >= L:
        return False
    if any(point_bytes(times(8, point)) == point_bytes(NEUTRAL) for point in (a, r_point)):
        return False
    k = int.from_bytes(sha512(r + node + data).digest(), "little") % L
    minus_a = (-a[0] % P, a[1], a[2], -a[3] % P)
    return point_bytes(add(times(s, BASE), times(k, minus_a))) == r
