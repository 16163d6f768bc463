"""The hostile bundle that the adversary tests and the benchmark run: every attack is an operation of it.

May not: be imported by anything that is shipped. It uses what native code in a worker could use. Rule: docs/sandbox.md.
"""

from __future__ import annotations

SOURCE = '''
import ctypes, errno, os, sys, time
from tea.protocol.frame import Frame, Kind, encode_frame
from tea.sdk import Actor, operation

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NUMBERS = sys.modules["tea.runtime.worker.syscall_table"].NUMBERS[os.uname().machine]


class Adversary(Actor):
    @operation
    def call(self, name: str, arguments: list[object]) -> str:
        """A system call as native code makes it."""
        native = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
        result = libc.syscall(ctypes.c_long(NUMBERS[name]), *native)
        return f"ok {result}" if result >= 0 else errno.errorcode[ctypes.get_errno()]

    @operation
    def open_file(self, path: str) -> str:
        try:
            return open(path).read()
        except OSError as error:
            return errno.errorcode[error.errno]

    @operation
    def python_fork(self) -> str:
        try:
            if os.fork() == 0:
                os._exit(0)
        except OSError as error:
            return errno.errorcode[error.errno]
        return "forked"

    @operation
    def thread(self) -> str:
        import threading
        try:
            threading.Thread(target=print).start()
        except RuntimeError as error:
            return str(error)
        return "started"

    @operation
    def load_library(self, name: str) -> str:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            return "refused"
        return "loaded"

    @operation
    def callback(self) -> str:
        """Native code that calls back needs memory that is written and then run."""
        try:
            pointer = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)
            return str(pointer())
        except MemoryError:
            return "refused"

    @operation
    def repeat(self, seconds: float, name: str, arguments: list[object]) -> int:
        """Do one of the others again and again; how often it was done."""
        until, count = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            getattr(self, name)(*arguments)
            count += 1
        return count

    @operation
    def churn(self) -> None:
        bytearray(48 << 20)

    @operation
    def call_unread(self, link: str, count: int) -> None:
        """Calls with large answers, of which none is read."""
        number = getattr(self, link)._description.number
        self.kvp.set("big", bytes(500_000))
        body = b"\\x91\\xa3big"
        for n in range(count):
            time.sleep(0.001)
            self.raw(encode_frame(Frame(Kind.CALL, 0, 0, number, 1000 + n, 0, 0, body)))

    @operation
    def alive(self) -> str:
        return "alive"

    @operation
    def spin(self) -> None:
        while True:
            pass

    @operation
    def eat(self) -> None:
        kept = []
        while True:
            kept.append(bytearray(1 << 20))

    @operation
    def eat_natively(self) -> int:
        """Memory taken without Python's knowledge, until there is none; how many MiB there were."""
        libc.malloc.restype = ctypes.c_void_p
        taken = 0
        while True:
            block = libc.malloc(ctypes.c_size_t(1 << 20))
            if not block:
                return taken
            ctypes.memset(block, 1, 1 << 20)
            taken += 1

    @operation
    def raw(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(0, view):]

    @operation
    def flood_calls(self, link: str, count: int) -> None:
        number = getattr(self, link)._description.number
        body = bytes([0x91, 0xA1, 0x78])
        for first in range(0, count, 64):
            self.raw(b"".join(encode_frame(Frame(Kind.CALL, 0, 0, number, 1000 + first + n, 0, 0, body))
                              for n in range(64)))

    @operation
    def flood_bodies(self, link: str, name: str, count: int, before: bytes, kibibytes: int, opcode: int = 0x90) -> None:
        """Calls whose last argument is a list of as many tiny values (empty lists, by default) as its bytes hold."""
        description = getattr(self, link)._description
        place = [one.name for one in description.operations].index(name)
        size = kibibytes << 10
        body = before + b"\\xdd" + size.to_bytes(4, "big") + bytes([opcode]) * size
        for _ in range(count):
            self.sent = getattr(self, "sent", 1 << 20) + 1
            self.raw(encode_frame(Frame(Kind.CALL, 0, place, description.number, self.sent, 0, 0, body)))

    @operation
    def join_sets(self, members: int, count: int) -> None:
        """Calls of a few bytes that take the provider as long as the sets are large."""
        if not self.kvp.set_contains("s0", b"0"):
            for number in range(members):
                for key in ("s0", "s1"):
                    self.kvp.set_add(key, str(members - number - 1).encode())
        description = self.kvp._description
        place = [one.name for one in description.operations].index("set_intersection")
        body = b"\\x91\\x92\\xa2s0\\xa2s1"
        for first in range(0, count, 64):
            self.raw(b"".join(encode_frame(Frame(Kind.CALL, 0, place, description.number, 1000 + first + n, 0, 0, body))
                              for n in range(64)))

    @operation
    def flood_messages(self, link: str, count: int) -> None:
        number = getattr(self, link)._description.number
        frame = encode_frame(Frame(Kind.TELL, 0, 0, number, 0, 0, 0, bytes([0x91, 0xA1, 0x78])))
        for _ in range(count // 64):
            self.raw(frame * 64)

    @operation
    def flood_log(self, lines: int) -> None:
        for number in range(lines):
            print("noise", number)

    @operation
    def link_number(self, link: str) -> int:
        return getattr(self, link)._description.number

    @operation
    def who_through_the_link(self) -> object:
        return self.echo.who()

    @operation
    def hang(self) -> None:
        while True:
            time.sleep(1000)

    @operation
    def answer_everything(self) -> None:
        """Answer calls that were given, were not given, and this one before it returns."""
        for number in range(1, 400):
            os.write(0, encode_frame(Frame(Kind.REPLY, correlation=number, body=b"\\xc0")))

    @operation
    def close_socket(self) -> None:
        os.close(0)
        time.sleep(1000)

    @operation
    def shut_socket(self) -> None:
        libc.shutdown(0, 2)
        time.sleep(1000)

    def on_stop(self) -> None:
        if getattr(self, "stubborn", False):
            time.sleep(1000)

    @operation
    def be_stubborn(self) -> None:
        self.stubborn = True
'''

OPERATIONS = (
    "call", "open_file", "python_fork", "thread", "load_library", "callback", "repeat", "churn", "call_unread", "alive",
    "spin", "eat", "eat_natively", "raw", "flood_calls", "flood_bodies", "join_sets", "flood_messages", "flood_log",
    "link_number", "who_through_the_link", "hang", "answer_everything", "close_socket", "shut_socket", "be_stubborn",
)  # fmt: skip
NAME = "adversary"
ENTRY = "Adversary"
