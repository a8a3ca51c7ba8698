"""The node's process: takes its home, builds the parts, runs them in one nursery, and takes them down in order."""

import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import NoReturn

import trio

from node.acquaintances import Acquaintances
from node.api.access import AccessRules
from node.api.app import make_app
from node.api.serving import ApiBindError, serve
from node.assembly import assemble
from node.backends import Surroundings
from node.backends.references import open_backend, without_secrets
from node.clock import Clock
from node.cores import model_threads
from node.desk import Desk, Nameplate
from node.driver import Driver
from node.exits import ExitCode, Failure, first_error
from node.idle import watch
from node.libp2p.transport import Libp2pTransport
from node.logs import configure
from node.meeting import JoinError, contact_of
from node.memory import model_memory
from node.models import Models
from node.recording import Recorder
from node.settings import ApiSettings, NodeSettings, Settings, load
from node.sources import Source
from node.store import keys
from node.store.home import Home, find_home
from node.store.journal import Journal
from node.store.lock import hold
from node.store.names import bird_name
from node.transport import ListenError
from node.version import program_version
from protocol.genesis import swarm_id
from protocol.identity import Identity, node_text
from swarm.events import ContactsFound, Reserved, Started, Stopping
from swarm.settings import Settings as MemberSettings
from swarm.values import MEMBERSHIP

log = logging.getLogger(__name__)

READY_FD_VARIABLE = "SWARM_READY_FD"
LAST_WORDS_S = 0.3  # For answers that end because the node stops, and for the Goodbyes to be queued.
CARRIED_MAX = 32  # Neighbours that a relay carries for; as many as it has.

Report = Callable[..., None]


def main() -> NoReturn:
    """Run a node until SIGINT, SIGTERM or `swarm down`. Exits with a code of `node.exits`."""
    report = _reporter()
    try:
        _run(report)
    except Failure as failure:
        _tell(report, failure)
        sys.exit(failure.exit)
    except Exception as bug:
        log.exception("a bug has ended this node")
        hint = "The log has the details: swarm logs"
        _tell(report, Failure("bug", f"a bug has ended this node: {bug!r}", hint=hint, exit=ExitCode.BUG))
        sys.exit(ExitCode.BUG)
    sys.exit(ExitCode.DONE)


def _run(report: Report) -> None:
    home = find_home()
    settings = load(home)
    home.create()
    with hold(home):
        configure(settings.log, home.logs)
        seed, created = keys.identity_seed(home.identity_key)
        api_key = keys.api_key(home.api_key)
        identity = Identity(seed)
        name = settings.node.name or bird_name(identity.node)
        report("identity", node=node_text(identity.node), name=name, created=created)
        try:
            trio.run(_live, home, settings, identity, seed, name, api_key, report)
        except BaseExceptionGroup as group:
            raise first_error(group) from None


async def _live(
    home: Home, settings: Settings, identity: Identity, seed: bytes, name: str, api_key: str, report: Report
) -> None:
    clock = Clock()
    dice = Random(os.urandom(32))
    swarm = swarm_id(settings.swarm.current)
    stopping = trio.Event()
    transport = Libp2pTransport(
        seed,
        swarm,
        name,
        f"starlings/{program_version()}",
        settings.node.listen,
        settings.node.announce,
        settings.node.mdns,
        clock,
        dice,
        CARRIED_MAX if settings.node.relay == "serve" else 0,
        settings.node.upnp,
    )
    threads = settings.offer.threads or model_threads()
    kept = settings.journal
    journal = Journal(home.journal, keep_days=kept.keep_days, entries_max=kept.entries_max) if kept.entries_max else None
    recorder = Recorder(journal, lambda: time.time_ns() // 1_000_000, texts=kept.texts)
    node = assemble(
        identity=identity,
        swarm=swarm,
        name=name,
        settings=_member_settings(settings.node),
        transport=transport,
        open_model=open_backend,
        surroundings=Surroundings(home.logs, threads, context_tokens=settings.offer.context, exact=settings.offer.exact),
        parallel_max=settings.offer.max_parallel,
        memory_bytes=settings.offer.memory_bytes or model_memory(),
        pinned=settings.offer.pinned,
        clock=clock,
        dice=dice,
        stop=stopping.set,
        recorder=recorder,
    )
    member, models, desk, driver = node.member, node.models, node.desk, node.driver

    async with recorder.running(), trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, stopping)
        try:
            addresses = await nursery.start(transport.run, driver.post)
        except* ListenError as error:
            raise Failure("port_taken", str(first_error(error)), exit=ExitCode.ALREADY_HELD) from None
        report("listening", addresses=list(addresses))
        nursery.start_soon(driver.run)
        await nursery.start(models.run, settings.offer.models)
        if settings.offer.when == "idle":
            nursery.start_soon(watch, lambda busy: driver.post(Reserved(busy)))
        await node.detached.recover()
        rules = _access_rules(settings.api, api_key)
        try:
            app = make_app(desk, rules, recorder, node.detached, deadline_s=settings.ask.deadline_s)
            port = await nursery.start(serve, app, (settings.api.host, settings.api.port), home.socket)
        except* ApiBindError as error:
            raise Failure("port_taken", str(first_error(error)), exit=ExitCode.ALREADY_HELD) from None
        url = f"http://{settings.api.url_host}:{port}"
        desk.plate = Nameplate(program_version(), settings.swarm.current, url, addresses, settings.node.mdns)
        driver.post(Started(addresses))
        await nursery.start(node.detached.run)
        _join(driver, settings.node.join)
        if not settings.node.offline:
            acquaintances = Acquaintances(home.peers(swarm), member.best_contacts, driver.post)
            nursery.start_soon(acquaintances.run)
        nursery.start_soon(_become_ready, desk, models, report)

        # A signal may come while the models still load.
        await stopping.wait()
        log.info("stopping")
        desk.state = "stopping"
        driver.post(Stopping())
        with trio.move_on_after(LAST_WORDS_S):
            while len(member.asking) or member.serving.load()[1]:
                await trio.sleep(LAST_WORDS_S / 10)
        nursery.cancel_scope.cancel()


def _member_settings(node: NodeSettings) -> MemberSettings:
    """A relay does not need one, or nobody could dial it."""
    if node.relay == "serve":
        return MemberSettings(relays_used=0, carried_max=CARRIED_MAX)
    return MemberSettings() if node.relay == "use" else MemberSettings(relays_used=0)


def _access_rules(api: ApiSettings, key: str) -> AccessRules:
    """Where it listens is a name of this node too: there are other loopback addresses than 127.0.0.1."""
    return AccessRules(key, (*api.hosts, api.url_host), api.origins)


def _join(driver: Driver, addresses: tuple[str, ...]) -> None:
    try:
        contacts = tuple(contact_of(address) for address in addresses)
    except JoinError as error:
        raise Failure("config_invalid", f"node.join: {error}", exit=ExitCode.CONFIG_INVALID) from None
    driver.post(ContactsFound("join", MEMBERSHIP, contacts))


async def _become_ready(desk: Desk, models: Models, report: Report) -> None:
    """The node is ready once every model has come up or failed."""
    await _report_models(models, report)
    if desk.state == "starting":
        desk.state = "ready"
        report("ready", api=desk.plate.api)
        log.info("ready; API at %s, listening on %s", desk.plate.api, ", ".join(desk.plate.addresses))
        # What there is by now stays as long as the node does. Looking through it for garbage would stop everything for 60 ms, again
        # and again.
        gc.collect()
        gc.freeze()


async def _report_models(models: Models, report: Report) -> None:
    """Tell how each model comes up; the API answers meanwhile."""
    sources = models.sources
    for source in sources:
        report("model", ref=without_secrets(source.ref), state="loading", detail="")
    async with trio.open_nursery() as nursery:

        async def tell(source: Source) -> None:
            await source.settled.wait()
            view = source.view
            report(
                "model",
                ref=view.ref,
                state=view.state,
                detail=view.detail,
                model=view.model,
                skills=view.skills,
                tokens_per_second=view.tokens_per_second,
            )

        for source in sources:
            nursery.start_soon(tell, source)


async def _stop_on_signal(stopping: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stopping.set()


def _reporter() -> Report:
    """Tells whoever started this process how far it is: one JSON object a line, to the file descriptor that they gave."""
    given = os.environ.pop(READY_FD_VARIABLE, "")
    if not given.isdigit():
        return lambda event, **fields: None
    stream = os.fdopen(int(given), "w", encoding="utf-8")
    os.set_inheritable(int(given), False)  # Or a model's process would keep the starter waiting.

    def report(event: str, **fields: object) -> None:
        if stream.closed:
            return
        try:
            print(json.dumps({"event": event, **fields}), file=stream, flush=True)
            if event in ("ready", "error"):
                stream.close()
        except OSError:  # Whoever started us has gone; that is no reason to stop.
            with suppress(OSError):
                stream.close()

    return report


def _tell(report: Report, failure: Failure) -> None:
    log.error("%s", failure.message)
    in_log = any(getattr(handler, "stream", None) is sys.stderr for handler in logging.getLogger().handlers)
    report("error", code=failure.code, message=failure.message, hint=failure.hint, exit=int(failure.exit))
    said = [] if in_log else [f"swarm: {failure.message}"]
    print(*said, *([failure.hint] if failure.hint else []), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
