"""Every number that a decision depends on: its unit, what it must relate to, and where its default came from."""

from dataclasses import dataclass, fields

from protocol import limits as lim

ZERO_ALLOWED = (
    "carried_max",
    "choosing_draws",
    "choosing_focus",
    "exploration_share",
    "neighbours_kept",
    "prefixes_told",
    "queue_max",
    "reach_asks",
    "relays_used",
)
PULL_ADVERTS_MAX = 256  # The bound of AdvertPull.adverts_max.


@dataclass(frozen=True, slots=True)
class Settings:
    """What one member decides by. Two members of one swarm may differ; nothing on the wire depends on these."""

    # --- Finding ------------------------------------------------------------------------------------------------------
    gossip_period_s: float = 0.1
    """How long news waits for more, so that what comes together travels together. Seven hops are enough for 2,000 members."""
    gossip_renewal_period_s: float = 1.0
    """The same for what only renews: nobody waits for it, and ten travel at the price of one."""
    gossip_budget: float = 32.0
    """What may be told in a second in the long run, in pulses; an advert counts for four. About 6 KB/s, however large the swarm."""
    gossip_copies: int = 4
    """To how many neighbours this node passes one version on while there is much to tell; to all of them in calm times.
    Demers 1987: what is missed falls as exp(-copies), so of fifty nodes one misses most news at four.
    """
    gossip_renewals: int = 2
    """The same for a version that says nothing new. What is missed is heard with the next, or found by comparing."""
    pulse_period_s: float = 20.0
    """Between signs of life. Two may be lost before others stop believing that a node is there (PRESENCE_MS)."""
    pulse_gap_s: float = 0.1
    """Between two signs of life at the least, when the load changes. Shorter than `pulse_period_s`. spread.toml: with 0.3 s one
    choice in twenty more finds somebody else there, for 2 % fewer messages."""
    advert_period_s: float = 300.0
    """Between renewals of this node's own advert when nothing in it changes. Half of its lifetime."""
    advert_lifetime_s: float = 600.0
    """How long an advert is believed while pulses keep coming."""
    digest_period_s: float = 20.0
    """Between comparisons with a neighbour. At most 7 KB each, so 350 B/s."""
    suspect_after_s: float = 0.5
    """From the loss of a link to saying so: a node that only changed its link is back by then."""
    adverts_max: int = 256
    """Nodes remembered: the full view of a swarm of that size, a sample of a larger one in which rare skills and distant places
    stay. Bounds memory to about 1.5 MB."""
    pull_adverts: int = 64
    """Adverts given to one neighbour at once: four messages of the largest."""
    neighbours_target: int = 8
    """Links that this node opens by itself. Research notes: 8 to 12 keep a swarm whole when 30 % are killed."""
    neighbours_kept: int = 4
    """Links that stay when there are too many, because they have lasted longest; and as many because they are nearest."""
    neighbours_max: int = 32
    """Links kept; beyond it the longest unused are closed. Above `neighbours_target`."""
    sweep_period_s: float = 1.0
    """Between looks at what has expired, fallen silent or is missing."""
    ping_after_s: float = 2.0
    """A neighbour this long silent is pinged. With `sweep_period_s` and `pong_limit_s` it bounds how long the dead stay."""
    pong_limit_s: float = 3.0
    """A pinged neighbour this long silent is dead. The three and `suspect_after_s` leave 2 s of ten for others to hear of it."""
    dial_retry_first_s: float = 1.0
    """Wait after the first failed dial; doubles up to `dial_retry_max_s`, with jitter."""
    dial_retry_max_s: float = 60.0
    """The longest wait between dials of one address."""
    reconnect_period_s: float = 30.0
    """Between dials of former neighbours that are taken for dead, if as many are lost as are there; else more rarely (Serf)."""
    dials_max: int = 4
    """Dials under way at once. Each costs a handshake."""
    contacts_max: int = 512
    """Addresses remembered from joins, mDNS and the DHT."""
    search_period_s: float = 30.0
    """Between questions to the DHT for members while neighbours are missing."""

    reach_asks: int = 3
    """Neighbours that are asked to dial this node, to know whether others can. Two that agree are believed."""
    reach_period_s: float = 600.0
    """Between two such questions to one neighbour. Home networks change a few times a day."""
    relays_used: int = 2
    """Relays that carry links to this node while others cannot dial it. One may die."""
    carried_max: int = 0
    """Neighbours that this node carries links for; 0: it is no relay."""

    # --- Choosing -----------------------------------------------------------------------------------------------------
    choosing_draws: int = 2
    """Workers drawn at random, of which the best is taken; 0 takes the best of all. Two is the classical number (Mitzenmacher
    2001). herd.toml: where speeds differ by a factor of 60, two often find two slow workers, and four do better.
    """
    choosing_focus: float = 16.0
    """How much likelier the cheaper are drawn: by this power of the ratio of costs. 0: all alike. See herd.toml."""
    exploration_share: float = 0.05
    """Share of decisions in which a worker that was never seen to answer is tried on purpose, as long as there is one that could
    be as good as the best that was seen."""
    breaker_first_s: float = 30.0
    """How long a worker that keeps failing is left alone at first; doubles up to `breaker_max_s`."""
    breaker_max_s: float = 3600.0
    """The longest such wait. An hour: a machine that was mended is found again the same evening."""
    speed_tau_s: float = 300.0
    """Time constant of what is remembered of a worker's speed."""
    success_half_life_s: float = 86_400.0
    """Half-life of what is remembered of a worker's successes and failures."""
    tokens_expected: int = 128
    """Length of an answer that costs are compared at, if the task allows as many."""

    # --- Leading ------------------------------------------------------------------------------------------------------
    plans_max: int = 8
    """Plans of this node's own users under way; more are refused."""
    plan_tasks_at_once: int = 16
    """Tasks of one plan under way. With 8 plans they come to half of `tasks_max`."""
    plan_tries_max: int = 4
    """How often a task of a plan is asked that comes to nothing for want of workers."""
    plan_retry_s: float = 2.0
    """From such an end until it is asked again; doubles each time."""

    # --- Doing, as requester ------------------------------------------------------------------------------------------
    tasks_max: int = 256
    """Tasks of this node's own users under way; more are refused."""
    accept_limit_s: float = 2.0
    """A worker that has not accepted by then is passed over. Research notes: p99 with sleeping laptops 15.8 s -> 6.2 s."""
    first_piece_limit_s: float = 20.0
    """From accept to first text, for each attempt in front; longer inputs get more (`input_tokens_per_s`)."""
    input_tokens_per_s: float = 25.0
    """How slowly a worker may read its input before it counts as stalled. An old laptop that does something else besides."""
    watch_after_s: float = 0.5
    """A worker this long silent while an attempt is under way is asked for a sign of life. Below `silence_limit_s`."""
    silence_limit_s: float = 1.4
    """A worker this long silent gets a rival: another is asked beside it, and whoever speaks first goes on."""
    hedge_share: float = 0.05
    """Hedges per task, in the long run: what a 95th percentile costs by its own nature (Dean and Barroso 2013)."""
    hedge_burst: float = 5.0
    """Hedges that may come at once after a calm time."""
    hedge_after_min_s: float = 0.2
    """No hedge comes earlier, however fast the worker usually is: a second request costs about that much itself."""
    busy_wait_first_s: float = 0.5
    """When everybody is busy, the first wait before they are asked again; doubles up to `busy_wait_max_s`, with jitter."""
    busy_wait_max_s: float = 4.0
    """The longest such wait."""
    piece_limit_s: float = 10.0
    """Between pieces. A slow worker still says one word in ten seconds."""
    attempts_max: int = 8
    """Attempts of one task that may fail, and workers that may refuse in one round."""
    answer_bytes_max: int = 1_048_576
    """Text of one answer, each piece counting for 16 bytes at least; bounds what an endless worker can make us hold."""
    search_limit_s: float = 3.0
    """How long a task waits for a first capable worker to be found."""

    # --- Doing, as worker ---------------------------------------------------------------------------------------------
    prefixes_told: int = lim.PREFIXES_MAX
    """Digests of prefixes that this node tells others. 0: none. See prefixes.toml."""
    queue_max: int = 16
    """Attempts accepted but not begun, those of peers and those of this node's own user each; more are refused as busy."""

    def validate(self) -> None:
        """Raises ValueError naming the setting and the relation that is broken."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and field.name not in ZERO_ALLOWED):
                raise ValueError(f"{field.name} must be positive, not {value}")
        for smaller, larger, why in (
            ("gossip_period_s", "gossip_renewal_period_s", "news must not wait for what is none"),
            ("pulse_gap_s", "pulse_period_s", "a renewal must not come before its gap"),
            ("neighbours_target", "neighbours_max", "links that were just opened would be closed again"),
            ("dial_retry_first_s", "dial_retry_max_s", "the wait grows"),
            ("breaker_first_s", "breaker_max_s", "the wait grows"),
            ("watch_after_s", "silence_limit_s", "a sign of life must be asked for before it is missed"),
            ("busy_wait_first_s", "busy_wait_max_s", "the wait grows"),
        ):
            if getattr(self, smaller) > getattr(self, larger):
                raise ValueError(f"{smaller} must not exceed {larger}: {why}")
        if 2 * self.neighbours_kept >= self.neighbours_max:
            raise ValueError("neighbours_kept must be less than half of neighbours_max: somebody must be able to go")
        if self.pull_adverts > PULL_ADVERTS_MAX:
            raise ValueError(f"pull_adverts must not exceed {PULL_ADVERTS_MAX}, the most that one message asks for")
        if self.prefixes_told > lim.PREFIXES_MAX:
            raise ValueError(f"prefixes_told must not exceed {lim.PREFIXES_MAX}, the most that one advert names")
        if self.pulse_period_s * 2000 > lim.PRESENCE_MS:
            raise ValueError(f"pulse_period_s must not exceed {lim.PRESENCE_MS / 2000:g}: one lost pulse hides a worker")
        if self.advert_lifetime_s < 2 * self.advert_period_s:
            raise ValueError("advert_lifetime_s must be at least twice advert_period_s: one lost renewal hides a worker")
        if self.advert_lifetime_s * 1000 > lim.LIFETIME_MS_MAX:
            raise ValueError(f"advert_lifetime_s must not exceed {lim.LIFETIME_MS_MAX / 1000:g}, the longest a seal holds")
