"""Error codes: numbered once, and what an unknown one means."""

from hypothesis import given
from hypothesis import strategies as st

from protocol import limits as lim
from protocol.errors import ERROR_CODES, UNKNOWN_CODE_MEANING, ErrorCode, RemoteProtocolError, error_code


def test_every_code_is_found_by_its_number_and_has_a_name_of_its_own() -> None:
    assert all(error_code(number) is code and code.number == number for number, code in ERROR_CODES.items())
    assert len({code.name for code in ERROR_CODES.values()}) == len(ERROR_CODES)


@given(st.integers(0, 65_535).filter(lambda number: number not in ERROR_CODES))
def test_an_unknown_code_is_indefinite(number: int) -> None:
    """[ERR-1] It comes from a newer peer; whoever is unsure whether work was done says that it may have been."""
    assert error_code(number) == ErrorCode(number, f"code_{number}", False, UNKNOWN_CODE_MEANING)


def test_a_meaning_is_a_sentence_that_fits_a_reason() -> None:
    for code in ERROR_CODES.values():
        assert code.meaning.endswith(".")
        assert len(code.meaning.encode()) <= lim.REASON_BYTES_MAX


def test_an_offence_has_a_kind_to_count_and_a_message_to_read() -> None:
    error = RemoteProtocolError("garbage", "not an envelope")
    assert (error.kind, str(error)) == ("garbage", "not an envelope")
