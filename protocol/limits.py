"""Every bound of the wire, each with its reason. SPEC.md's table of limits is held equal to this file by a test."""

from typing import Final

# Frames and envelopes.
FRAME_BYTES_MAX: Final = 128 * 1024  # A third over the largest body; who announces more is cut before it is buffered.
BODY_BYTES_MAX: Final = 96 * 1024  # A full request in UTF-8, with room for its other fields.
HEADER_BYTES_MAX: Final = 256  # The header's fields add up to about 130 bytes.
LIFETIME_MS_MAX: Final = 600_000  # Nothing that is signed is worth keeping longer.
CLOCK_SKEW_MS_MAX: Final = 120_000  # Laptops drift; two minutes covers those without NTP for a season.
MESSAGE_LIFETIME_MS: Final = 30_000  # Of messages between neighbours; they are read at once or their link is gone.

# Links.
EXCHANGES_PER_LINK_MAX: Final = 64  # Attempts open at once on one link, in each direction.

# Text and lists inside messages.
NAME_BYTES_MAX: Final = 32  # Fits a column of `swarm peers`.
AGENT_BYTES_MAX: Final = 48  # Program and version.
SKILL_BYTES_MAX: Final = 48  # A verb and a subject.
MODEL_BYTES_MAX: Final = 96  # Longest model names on public hubs are near 90.
ADDRESS_BYTES_MAX: Final = 192  # A relayed multiaddr with two peer ids and an IPv6 address.
ADDRESSES_MAX: Final = 8  # Dialled in turn; more only serves to make others dial strangers.
DESCRIPTION_BYTES_MAX: Final = 240  # One sentence.
LABEL_BYTES_MAX: Final = 32  # One word of an answer.
LABELS_MAX: Final = 32  # Larger label sets are named in the description.
FEATURE_BYTES_MAX: Final = 16  # One word of a program.
FEATURES_MAX: Final = 16  # Three times what there is now.
REASON_BYTES_MAX: Final = 240  # One sentence for people.
CAPABILITIES_MAX: Final = 16  # Per node; keeps an advert under ADVERT_BYTES_MAX in practice.
ADVERT_BYTES_MAX: Final = 6_000  # Sealed. Sixteen in one push stay under BODY_BYTES_MAX.
ADVERTS_PER_PUSH_MAX: Final = 16  # See ADVERT_BYTES_MAX.
RUMOUR_BYTES_MAX: Final = 320  # A sealed pulse has about 190 bytes, a suspicion 220.
RUMOURS_MAX: Final = 64  # Of each sort in one message; together at most 41 KB.
DIGESTS_MAX: Final = 128  # Nodes that one message compares or asks for: 7 KB.
PRESENCE_MS: Final = 60_000  # How long a node is taken to be there after its newest sign of life. Two pulses may be lost.
TURNS_MAX: Final = 128  # Turns of one conversation.
PREFIX_BYTES: Final = 8  # Of the digest of a prefix: among a million, two meet by chance once in thirty million.
PREFIX_TEXT_BYTES_MIN: Final = 256  # Shorter ones are read sooner than they are found.
PREFIXES_MAX: Final = 8  # That one advert names.
TURN_BYTES_MAX: Final = 64 * 1024  # One turn; the sum is bounded by BODY_BYTES_MAX.
STOPS_MAX: Final = 4  # As in the OpenAI API.
STOP_BYTES_MAX: Final = 64  # A short phrase or a marker.
TOP_K_MAX: Final = 1_024  # More are hardly ever drawn; 0 is all.
REPEAT_PENALTY_MIN: Final = 0.1  # Below 1 it is a reward.
REPEAT_PENALTY_MAX: Final = 10.0  # From 2 on models say nothing twice, not even a full stop.
FORMAT_BYTES_MAX: Final = 16 * 1024  # Larger than any schema that a small model can fill in.
OPTIONS_MAX: Final = 64  # Texts to choose from.
OPTION_BYTES_MAX: Final = 512  # One of them, and any token of any vocabulary.
LOGPROBS_MAX: Final = 21  # One more than the alternatives of each token; as in the OpenAI API.
LOGPROB_MIN: Final = -10_000.0  # Less likely than that is as likely.
FUNCTION_BYTES_MAX: Final = 64  # Name of a function, id of a call; as in the OpenAI API.
ARGUMENTS_BYTES_MAX: Final = 16 * 1024  # Of one call.
CALLS_MAX: Final = 8  # Of functions, in one turn.
PIECE_BYTES_MAX: Final = 16 * 1024  # A worker splits longer pieces.
PIECE_TOKENS_MAX: Final = 1_024  # Far more than a twentieth of a second brings; a worker leaves out what is more.
DELIVERED_BYTES_MAX: Final = 64 * 1024  # The beginning of an answer, when another worker goes on; as one turn.
DELIVERED_TOKENS_MAX: Final = 8_192  # A longer beginning is gone on with from its text.
NUMERICS_BYTES_MAX: Final = 16  # Half a hash: nobody gains by a collision.
TOKENS_MAX: Final = 32_768  # One answer.
CONTEXT_TOKENS_MAX: Final = 16_777_216  # Leaves room for long-context hubs.
DEADLINE_MS_MAX: Final = 600_000  # Ten minutes: longer work is a plan, not a task.
SLOTS_MAX: Final = 1_024  # Far above what one node serves at once.
