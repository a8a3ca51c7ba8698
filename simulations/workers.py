"""Virtual models: how long an answer takes, in which pieces it comes, and when it breaks off."""

from protocol import errors
from protocol.parts import AttemptId, Capability
from protocol.prefixes import prefix_of
from simulations.agenda import Agenda
from simulations.machines import Generation, Process
from swarm.effects import Generate
from swarm.events import GenerationFailed, GenerationFinished, PieceGenerated
from swarm.values import Usage

STOP_S = 0.02  # Between two tokens of a typical model.
BYTES_PER_TOKEN = 4
NOISE = 0.1  # The same model takes a little longer or shorter each time.


def answer_tokens(task: bytes, tokens_max: int) -> int:
    """How long the answer is: a property of the question, so the same whoever answers and whenever."""
    return 1 + int.from_bytes(task[:2], "big") * (tokens_max - 1) // 65_535


def piece_text(index: int) -> str:
    """What a piece says. An answer is `0 1 2 …`, so that a gap or an echo in what a user reads is seen at once."""
    return f"{index} "


class Workers:
    """The models of every machine. They need no dice: chance comes out of the ids of attempts, which the requesters drew."""

    def __init__(self, agenda: Agenda, pieces_max: int) -> None:
        self._agenda, self._pieces_max = agenda, pieces_max
        self.bytes_in = self.bytes_held = 0

    @property
    def input_held(self) -> float:
        """Which share of all inputs was held by those who were given them."""
        return self.bytes_held / self.bytes_in if self.bytes_in else 0.0

    def generate(self, process: Process, effect: Generate) -> None:
        """Schedule every piece of the answer, and its end."""
        request, machine, post = effect.request, process.machine, self._agenda.post
        capability = next(offered for offered in machine.capabilities if offered.model == effect.model)
        attempt = request.attempt
        noise = 1.0 + NOISE * (attempt[1] / 127.5 - 1.0)
        tokens = answer_tokens(request.task, max(1, request.tokens_max))
        if int.from_bytes(attempt[5:7], "big") < machine.straggling * 65_536:
            noise *= machine.straggle_factor
        at_work = 1 + sum(each.model == effect.model for each in process.generations.values())
        factor = noise * machine.pace * machine.shared(capability, at_work)  # Of those that come later each pays itself.
        first_s = (capability.first_token_ms / 1000 + self._reading_s(process, effect, capability)) * factor
        writing_s = (tokens - 1) / machine.true_speed(capability) * factor
        generation = process.generations[attempt] = Generation(process, attempt, effect.model)
        pieces = min(self._pieces_max, tokens)
        begun = len(request.delivered.split())  # Pieces that the user has from somebody else; their words are not written again.
        fails = int.from_bytes(attempt[2:4], "big") < machine.failing * 65_536
        delivered = begun + attempt[4] % (pieces - begun) if fails and begun < pieces else pieces
        for index in range(begun, delivered):
            at_s = first_s + writing_s * (index - begun) / pieces
            post(at_s, generation, PieceGenerated(attempt, piece_text(index)))
        if fails:
            failed = GenerationFailed(attempt, errors.BACKEND_FAILED.number, "the model broke off")
            post(first_s + writing_s * (delivered - begun) / pieces, generation, failed)
            return
        writing_s *= (pieces - begun) / pieces
        tokens_in = sum(len(turn.text) for turn in request.turns) // BYTES_PER_TOKEN
        finish = "length" if tokens == request.tokens_max else "stop"
        usage = Usage(finish, tokens_in, tokens, first_s, first_s + writing_s)
        post(first_s + writing_s, generation, GenerationFinished(attempt, usage))

    def _reading_s(self, process: Process, effect: Generate, capability: Capability) -> float:
        """How long the input takes to read; its prefix is held from then on."""
        digest, size = prefix_of(effect.model, effect.request.turns, effect.request.demands.tools)
        read = process.read.setdefault(effect.model, [])
        held = size if digest in read else 0
        if digest:
            read[:] = [*(other for other in read if other != digest), digest][-capability.slots :]
        bytes_in = sum(turn.size for turn in effect.request.turns)
        self.bytes_in += bytes_in
        self.bytes_held += held
        speed = capability.tokens_in_per_second
        return (bytes_in - held) / BYTES_PER_TOKEN / speed if speed else 0.0

    def stop(self, process: Process, attempt: AttemptId) -> None:
        """The model stops after its current token; what it has just finished stays finished."""
        generation = process.generations.get(attempt)
        if generation is not None:
            failed = GenerationFailed(attempt, errors.CANCELLED.number, "stopped")
            self._agenda.post(STOP_S, generation, failed)

    def ended(self, generation: Generation) -> None:
        """The process hears of the end now."""
        generation.open = False
        generation.process.generations.pop(generation.attempt, None)

    def crashed(self, process: Process) -> None:
        """Nobody works any more."""
        for generation in process.generations.values():
            generation.open = False
        process.generations.clear()
