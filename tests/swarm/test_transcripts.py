"""Every transcript in tests/transcripts/ still comes out as it is written there."""

from pathlib import Path

import pytest

from tests.transcript import play

FOLDER = Path(__file__).parents[1] / "transcripts"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    """`pytest --rewrite` writes the answers anew; read the difference before it is committed."""
    written = path.read_text(encoding="utf-8")
    played = play(written)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(played, encoding="utf-8")
    else:
        assert played == written


def test_there_are_transcripts() -> None:
    assert len(list(FOLDER.glob("*.txt"))) > 10


def test_a_transcript_comes_out_the_same_twice() -> None:
    path = FOLDER / "gossip.txt"
    assert play(path.read_text(encoding="utf-8")) == play(path.read_text(encoding="utf-8"))
