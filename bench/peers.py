"""The peers of the actor benchmark, each in the way its own documentation shows: echo of 64 bytes between processes.

May not: handicap a peer; what a peer does better than its defaults is used. Rule: docs/performance.md.

Every function answers (p50 in microseconds, calls a second with 64 in flight or None).
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

Figures = tuple[float, float | None]
PAYLOAD = b"x" * 64
IN_FLIGHT = 64
SUSTAINED = 250
"""Times `IN_FLIGHT` messages in one measurement of a rate: in a tenth of a second the scheduler has not yet settled."""
REPEATS = 3
"""Measurements of a rate, of which the median counts."""


def c_relay(rounds: int, repeats: int) -> dict[str, float]:
    """p50 in microseconds of the C ping-pong and the C relay, compiled here: medians of `repeats` runs in turn."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("bench: a C compiler is needed: apt-get install gcc libc6-dev")
    source = Path(__file__).parent / "c" / "relay.c"
    with tempfile.TemporaryDirectory() as folder:
        binary = f"{folder}/relay"
        subprocess.run([compiler, "-O2", "-o", binary, str(source)], check=True)
        found: dict[str, list[float]] = {"direct": [], "routed": []}
        for _ in range(repeats):
            for mode, times in found.items():
                done = subprocess.run([binary, mode, str(rounds), "88"], check=True, capture_output=True)
                times.append(int(done.stdout) / 1000)
        return {mode: statistics.median(times) for mode, times in found.items()}


def _serve_socket(connection: socket.socket, other: socket.socket) -> None:
    other.close()  # a fork has both ends, and would wait for itself
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder()
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            connection.sendall(encoder.encode(decoder.decode(data)))


def python_socketpair(rounds: int) -> float:
    """p50 in microseconds of blocking Python sockets with msgspec at both ends: the floor for a provider call."""
    ours, theirs = socket.socketpair()
    process = multiprocessing.get_context("fork").Process(target=_serve_socket, args=(theirs, ours))
    process.start()
    theirs.close()
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        ours.sendall(encoder.encode(["get", PAYLOAD]))
        decoder.decode(ours.recv(65536))
        times.append(time.perf_counter() - start)
    ours.close()
    process.join()
    return statistics.median(times) * 1e6


def _rate(window: Callable[[], None]) -> float:
    """Messages a second, where `window` sends and receives `IN_FLIGHT`."""
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(SUSTAINED):
            window()
        rates.append(IN_FLIGHT * SUSTAINED / (time.perf_counter() - start))
    return statistics.median(rates)


def _child(code: str, argument: str, seconds: float = 300.0) -> dict[str, Any]:
    """Run a peer in a fresh process (its actor system may not like company); its JSON answer."""
    done = subprocess.run(
        [sys.executable, "-c", code, argument], capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


_THESPIAN = """
import json, logging, statistics, sys, time
logging.disable(logging.CRITICAL)
from thespian.actors import Actor, ActorSystem
class Echo(Actor):
    def receiveMessage(self, message, sender):
        if isinstance(message, bytes): self.send(sender, message)
class Caller(Actor):
    def receiveMessage(self, message, sender):
        if isinstance(message, tuple):
            self.echo, self.left, window = message
            self.asker, self.missing, self.times, self.start = sender, self.left, [], time.perf_counter()
            for _ in range(window): self.begin()
        elif isinstance(message, bytes):
            self.missing -= 1
            self.times.append(time.perf_counter() - self.sent)
            if self.left: self.begin()
            if not self.missing:
                self.send(self.asker, (statistics.median(self.times), time.perf_counter() - self.start))
    def begin(self):
        self.left -= 1
        self.sent = time.perf_counter()
        self.send(self.echo, b"x" * 64)
base, rounds, window, windows, repeats = sys.argv[1].split(":")
rounds, window, windows, repeats = int(rounds), int(window), int(windows), int(repeats)
system = ActorSystem(base, logDefs={"version": 1}, transientUnique=True)
try:
    echo, caller = system.createActor(Echo), system.createActor(Caller)
    system.ask(echo, b"x", 10)
    asked = []
    for _ in range(rounds):
        start = time.perf_counter(); system.ask(echo, b"x" * 64, 10); asked.append(time.perf_counter() - start)
    between, _ = system.ask(caller, (echo, rounds, 1), 100)
    told, pipelined = [], []
    for _ in range(repeats):
        pipelined.append(window * windows / system.ask(caller, (echo, window * windows, window), 100)[1])
        start = time.perf_counter(); count = 0
        for _ in range(windows):
            for _ in range(window): system.tell(echo, b"x" * 64)
            for _ in range(window):
                if system.listen(10) is not None: count += 1
        told.append(count / (time.perf_counter() - start))
    p50 = min(statistics.median(asked), between)
    print(json.dumps({"p50": p50 * 1e6, "rate": max(statistics.median(told), statistics.median(pipelined))}))
finally:
    system.shutdown()
"""


def thespian(base: str, rounds: int) -> Figures:
    """Thespian's own multiprocess bases: from actor to actor, and from outside by ask and tell; whichever is faster."""
    answer = _child(_THESPIAN, f"{base}:{rounds}:{IN_FLIGHT}:{SUSTAINED}:{REPEATS}")
    return answer["p50"], answer["rate"]


_XOSCAR = """
import asyncio, json, statistics, sys, time
import xoscar
class Echo(xoscar.Actor):
    def echo(self, value): return value
async def main(rounds, window, windows, repeats):
    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=1)
    async with pool:
        address = (pool.sub_processes and list(pool.sub_processes)[0]) or pool.external_address
        ref = await xoscar.create_actor(Echo, address=address, uid="echo")
        await ref.echo(b"x")
        times = []
        for _ in range(rounds):
            start = time.perf_counter(); await ref.echo(b"x" * 64); times.append(time.perf_counter() - start)
        rates = []
        for _ in range(repeats):
            start = time.perf_counter()
            for _ in range(windows): await asyncio.gather(*(ref.echo(b"x" * 64) for _ in range(window)))
            rates.append(window * windows / (time.perf_counter() - start))
        print(json.dumps({"p50": statistics.median(times) * 1e6, "rate": statistics.median(rates)}))
asyncio.run(main(*map(int, sys.argv[1].split(":"))))
"""


def xoscar(rounds: int) -> Figures:
    """xoscar, one sub-process."""
    answer = _child(_XOSCAR, f"{rounds}:{IN_FLIGHT}:{SUSTAINED}:{REPEATS}")
    return answer["p50"], answer["rate"]


def pykka(rounds: int) -> Figures:
    """Pykka: threads of one process, so no boundary is crossed at all."""
    import pykka as library

    class Echo(library.ThreadingActor):
        def on_receive(self, message: Any) -> Any:
            return message

    actor = Echo.start()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        actor.ask(PAYLOAD)
        times.append(time.perf_counter() - start)

    def window() -> None:
        for future in [actor.ask(PAYLOAD, block=False) for _ in range(IN_FLIGHT)]:
            future.get()

    rate = _rate(window)
    actor.stop()
    return statistics.median(times) * 1e6, rate


def _zmq_echo(address: str) -> None:
    import zmq

    socket_ = zmq.Context().socket(zmq.DEALER)
    socket_.identity = b"echo"
    socket_.connect(address)
    socket_.send(b"ready")
    while True:
        sender, data = socket_.recv_multipart()
        socket_.send_multipart([sender, data])


def _zmq_router(address: str) -> None:
    import zmq

    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(address)
    while True:
        sender, *parts = router.recv_multipart()
        if len(parts) == 2:
            router.send_multipart([parts[0], sender, parts[1]])


def pyzmq(rounds: int) -> Figures:
    """ZeroMQ: a DEALER, a ROUTER in the middle, another DEALER, each its own process."""
    import zmq

    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/router"
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=f, args=(address,), daemon=True) for f in (_zmq_router, _zmq_echo)]
        for process in processes:
            process.start()
        client = zmq.Context().socket(zmq.DEALER)
        client.connect(address)
        client.setsockopt(zmq.RCVTIMEO, 500)
        deadline = time.monotonic() + 10
        while True:  # until both ends are known to the router
            client.send_multipart([b"echo", PAYLOAD])
            with contextlib.suppress(zmq.Again):
                client.recv_multipart()
                break
            if time.monotonic() > deadline:
                raise RuntimeError("ZeroMQ did not connect")
        time.sleep(0.2)
        client.setsockopt(zmq.RCVTIMEO, 100)
        with contextlib.suppress(zmq.Again):
            while True:
                client.recv_multipart()
        client.setsockopt(zmq.RCVTIMEO, 5000)
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            client.send_multipart([b"echo", PAYLOAD])
            client.recv_multipart()
            times.append(time.perf_counter() - start)

        def window() -> None:
            for _ in range(IN_FLIGHT):
                client.send_multipart([b"echo", PAYLOAD])
            for _ in range(IN_FLIGHT):
                client.recv_multipart()

        rate = _rate(window)
        for process in processes:
            process.kill()
        return statistics.median(times) * 1e6, rate


def attempt(name: str, run: Any) -> Figures | None:
    """A peer's figures, or None with a line on standard error when it does not run here."""
    try:
        figures: Figures = run()
    except (TimeoutError, ImportError, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"bench: {name} did not run: {error}\n")
        return None
    return figures
