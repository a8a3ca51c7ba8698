"""Continuous batching: every text that grows gets its next token, then new prompts are read for a while, and so on in turn.

A place in the context's memory keeps what it has computed when its answer is over, and a new text that begins alike starts from
there, or from a copy of it if the place is still in use. A text whose beginning another one is just having computed waits for that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

from node.backends.llama_cpp.batch import RATE_FIRST, Row, rate_after
from node.backends.llama_cpp.context import Aborted, Context, Logits
from node.backends.llama_cpp.model import ComputeFailed
from node.backends.llama_cpp.sampling import BrokenLogits

READ_S = 0.20  # What reading may take while others wait for their next token,
READ_BEGUN_S = 1.0  # while only such do that have just begun: a crowd is quicker if it goes on together,
READ_ALONE_S = 0.5  # and what one batch of it may: a newcomer may come.
BEGUN_MAX = 8  # Tokens up to which a text has just begun.
READ_MIN = 8  # Rows of a batch of reading, however slow: fewer take nearly as long.
READ_TOGETHER = 32  # Rows up to which several prompts are read in one batch: one of them would cost nearly as much.
WANTED_MAX = 32  # Rows of one text in a batch whose logits are wanted: each takes as many numbers as there are tokens.
SAVED_MIN = 8  # Tokens that a text must save by a copy, which moves a whole place, or by waiting for another one to be read.
GAP_STEPS = 4  # Places that stay empty between others for so long are closed; before, a newcomer may take them.


@dataclass(eq=False, slots=True)
class Text:
    """One text that grows: a prompt of at least one token, perhaps the beginning of its answer, and what `choose` adds.

    `choose` is given the logits after the last token and returns the next one; it may raise BrokenLogits. `known`: the last so
    many tokens are there already, and `choose` is nevertheless given what came before each of them, and returns it. `grown`: how
    many tokens of an answer it has been given.
    """

    tokens: list[int]
    choose: Callable[[Logits], int]
    known: int = 0
    grown: int = 0
    place: "Place | None" = None

    @property
    def first_wanted(self) -> int:
        """The position from which on it matters what follows."""
        return len(self.tokens) - 1 - self.known


@dataclass(eq=False, slots=True)
class Place:
    """One sequence's part of the memory: the tokens whose keys and values it holds, and who uses it."""

    number: int
    held: list[int] = field(default_factory=list)
    text: Text | None = None
    used: int = 0  # The step that it was taken in last, and then the one in which that text was over.

    @property
    def unread(self) -> int:
        """Tokens of its text that are still to be computed; with one, it grows."""
        return len(self.text.tokens) - len(self.held) if self.text is not None else 0


class Grown(NamedTuple):
    """A text has its next token, or one that is known. Or it cannot have one: `broken` says why, and it is out."""

    text: Text
    token: int
    broken: BrokenLogits | None = None


class Scheduler:
    """Texts that grow side by side in one context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._places = [Place(number) for number in range(context.sequences)]
        self._waiting: list[Text] = []
        self._step = 0
        self._parts: list[tuple[Place, int]] = []  # Of the batch that is planned: so many tokens of each place.
        self._is_reading = False  # Whether that is reading.
        self._reads = 0
        self._read_s = 0.0  # That reading has taken since those that grow had their last token.
        self._gaps = 0  # Times in a row that some were found.
        self._rows_per_s = RATE_FIRST  # Of reading.

    def add(self, text: Text) -> None:
        """It grows until it is removed. The caller sees to it that it never gets longer than `context.tokens`."""
        self._waiting.append(text)

    def remove(self, text: Text) -> None:
        """It is over. What was computed of it stays, for those that begin alike."""
        place, text.place = text.place, None
        if place is None:
            self._waiting.remove(text)
        else:
            place.text, place.used = None, self._step

    def plan(self) -> list[Text]:
        """Decide on the next batch: of reading, as long as its time lasts, or the next token of every text that grows.

        Returns the texts that it is for; none if there is nothing to do.
        """
        self._step += 1
        self._seat()
        growing = [place for place in self._places if place.unread == 1]
        reading = [place for place in self._places if place.unread > 1]
        room = int(self._rows_per_s * min(self._patience_s(growing), READ_ALONE_S))
        self._is_reading = bool(reading) and (room >= READ_MIN or not growing or not self._read_s)
        if self._is_reading:
            self._parts = self._to_read(reading, max(room, READ_MIN))
        else:
            self._read_s = 0.0
            self._parts = [(place, 1) for place in self._without_gaps(growing)] if growing else []
        return [place.text for place, _ in self._parts if place.text is not None]

    def compute(self) -> list[Grown]:
        """Compute the batch that was planned last. Raises Aborted and ComputeFailed; then nothing has grown."""
        if not self._is_reading:
            return self._compute(self._parts)
        began = perf_counter()
        grown = self._compute(self._parts)
        took_s = perf_counter() - began
        self._read_s += took_s
        self._rows_per_s = rate_after(self._rows_per_s, sum(count for _, count in self._parts), took_s)
        return grown

    def _patience_s(self, growing: list[Place]) -> float:
        """How long reading may still take."""
        if not growing:
            return READ_ALONE_S
        has_begun = all(place.text is not None and place.text.grown <= BEGUN_MAX for place in growing)
        return (READ_BEGUN_S if has_begun else READ_S) - self._read_s

    # --- Computing ----------------------------------------------------------------------------------------------------

    def _to_read(self, reading: list[Place], room: int) -> list[tuple[Place, int]]:
        """What comes into one batch of it: the shortest rest and the oldest prompt are first in turn, so that neither waits."""
        room = min(room, self._context.rows_max)
        self._reads += 1
        shortest_first = self._reads % 2 == 1
        reading.sort(key=lambda place: (place.unread, place.used) if shortest_first else (place.used, place.unread))
        parts: list[tuple[Place, int]] = []
        rows = 0
        for place in reading:
            # What fills a batch up goes to one text: others beside it would be computed apart.
            if rows == 0 or (self._context.block == 1 and rows + place.unread <= min(READ_TOGETHER, room)):
                parts.append((place, min(place.unread, room, _before_too_many(place))))
                rows += parts[-1][1]
        return sorted(parts, key=lambda part: part[0].number)

    def _compute(self, parts: list[tuple[Place, int]]) -> list[Grown]:
        """So many tokens of each place, in one batch."""
        rows: list[Row] = []
        wanted: list[tuple[Place, int]] = []
        for place, count in parts:
            assert place.text is not None
            start, tokens, first = len(place.held), place.text.tokens, place.text.first_wanted
            wanted += [(place, len(rows) + at - start) for at in range(max(start, first), start + count)]
            rows += [Row(place.number, at, tokens[at], at >= first) for at in range(start, start + count)]
        try:
            self._context.decode(rows)
        except (Aborted, ComputeFailed):
            for place, _ in parts:
                del place.held[self._context.forget(place.number, len(place.held)) :]
            raise
        for place, count in parts:
            assert place.text is not None
            place.held += place.text.tokens[len(place.held) : len(place.held) + count]
        return [grown for place, row in wanted for grown in self._grow(place, row)]

    def _grow(self, place: Place, row: int) -> Iterator[Grown]:
        text = place.text
        if text is None:
            return  # It broke at an earlier row.
        try:
            token = text.choose(self._context.logits(row))
        except BrokenLogits as error:
            self.remove(text)
            yield Grown(text, -1, error)
            return
        if text.known:
            text.known -= 1
        else:
            text.tokens.append(token)
        text.grown += 1
        yield Grown(text, token)

    # --- Places -------------------------------------------------------------------------------------------------------

    def _seat(self) -> None:
        """Give places to those that wait, in their order. Who begins like a text that is being read waits for that."""
        for text in list(self._waiting):
            free = [place for place in self._places if place.text is None]
            if not free:
                return
            held = [(self._shared(place, text), place) for place in self._places]
            shared, best = max(held, key=lambda found: (found[0], found[1].text is None))
            being_read = [place.text.tokens for place in self._places if place.text is not None and place.unread > 1]
            if self._context.forgets and any(_common(tokens, text.tokens) >= shared + SAVED_MIN for tokens in being_read):
                continue
            self._waiting.remove(text)
            if best.text is None and (2 * shared >= len(best.held) or len(free) == 1):
                place = best
            else:
                place = min(free, key=lambda place: (place is best, len(place.held) > 0, place.used, place.number))
                if shared >= SAVED_MIN:
                    self._copy(best, place, shared)
            place.text, text.place, place.used = text, place, self._step
            # What follows is wanted of these, so they are computed in any case.
            shared = min(_common(place.held, text.tokens), text.first_wanted)
            del place.held[self._context.forget(place.number, shared) :]

    def _shared(self, place: Place, text: Text) -> int:
        """How many tokens of what a place holds the text begins with; less than all are of no use to a model of one state."""
        same = _common(place.held, text.tokens)
        return same if self._context.forgets or same == len(place.held) else 0

    def _copy(self, source: Place, target: Place, count: int) -> None:
        target.held = source.held[: self._context.copy(source.number, target.number, count)]

    def _without_gaps(self, growing: list[Place]) -> list[Place]:
        """The same texts, in places without others between them if that has lasted: else a batch is computed in pieces."""
        first, last = growing[0], growing[-1]
        gap = next((place for place in self._places[first.number : last.number] if place.text is None), None)
        self._gaps = self._gaps + 1 if gap is not None else 0
        if gap is None or self._gaps < GAP_STEPS:
            return growing
        text = last.text
        assert text is not None
        others = [place for place in self._places if place.text is None]
        refuge = min(others, key=lambda place: (len(place.held) > 0, place.used))
        if refuge is not gap and gap.held:
            self._copy(gap, refuge, len(gap.held))
            refuge.used = gap.used
        self._copy(last, gap, len(last.held))
        gap.text, text.place, gap.used = text, gap, last.used
        last.text = None
        last.held = last.held[: self._context.forget(last.number, 0)]
        return sorted([*growing[:-1], gap], key=lambda place: place.number)


def _before_too_many(place: Place) -> int:
    """How many rows of a place may be computed in one batch, for the logits that are wanted of them."""
    assert place.text is not None
    return max(0, place.text.first_wanted - len(place.held)) + WANTED_MAX


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens two texts have in common from their beginning on."""
    same, differ = 0, min(len(one), len(other)) + 1
    while differ - same > 1:  # Halving compares slices, which the interpreter does quickly.
        middle = (same + differ) // 2
        same, differ = (middle, differ) if one[same:middle] == other[same:middle] else (same, middle)
    return same
