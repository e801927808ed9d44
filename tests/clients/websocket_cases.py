"""The cases of Autobahn's WebSocket test suite (groups 1 to 7, 9 and 10; 12 and 13 are about compression) against a broker.

usage: python websocket_cases.py HOST PORT [GROUP ...]      exit code 0: all as expected

Autobahn's own fuzzing client wants a server that gives back what it gets. Here MQTT does that: every connection subscribes to a
topic of its own, and what a case sends are PUBLISH packets to it, cut into frames as the case has it. MQTT is binary
(MQTT-6.0.0-1), so cases with text end with 1003. Frames are written by hand, because most are wrong on purpose; what the broker sends
is read by wsproto, which refuses what a server must not send.
"""
import base64
import hashlib
import os
import socket
import struct
import sys
import time

from wsproto.frame_protocol import FrameProtocol, Opcode

HOST, PORT, GROUPS = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
WAIT_S = 20
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode, payload=b"", fin=True, rsv=0):
    """A masked frame (RFC 6455, 5.2)."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 1 << 16:
        head += b"\xfe" + struct.pack(">H", len(payload))
    else:
        head += b"\xff" + struct.pack(">Q", len(payload))
    mask = os.urandom(4)
    repeated = mask * (len(payload) // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[: len(payload)], "big")
    return head + mask + masked.to_bytes(len(payload), "big")


def close(code, reason=b""):
    return frame(CLOSE, struct.pack(">H", code) + reason)


def varint(number):
    out = b""
    while True:
        number, byte = number >> 7, number & 0x7F
        out += bytes([byte | (0x80 if number else 0)])
        if not number:
            return out


def packet(first, body):
    return bytes([first]) + varint(len(body)) + body


def text(value):
    return struct.pack(">H", len(value)) + value


class Connection:
    """A WebSocket with a session of MQTT that hears what it says."""

    def __init__(self):
        self.socket = socket.create_connection((HOST, PORT), WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames = FrameProtocol(client=True, extensions=[])
        self.data, self.pongs, self.closed, self.ended = b"", [], None, False
        self.partial = b""
        self.handshake()
        self.topic = b"c/" + base64.b32encode(os.urandom(5))
        self.send(frame(BINARY, packet(0x10, text(b"MQTT") + b"\x04\x02\x00\x3c" + text(self.topic[2:]))))
        self.read_data(4)
        self.send(frame(BINARY, packet(0x82, b"\x00\x01" + text(self.topic) + b"\x00")))
        self.read_data(9)
        assert self.data == b"\x20\x02\x00\x00\x90\x03\x00\x01\x00", self.data
        self.data = b""

    def handshake(self):
        key = base64.b64encode(os.urandom(16))
        self.socket.sendall(
            b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = self.socket.recv(4096)
            assert more, answer
            answer += more
        head, rest = answer.split(b"\r\n\r\n", 1)
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        assert head.startswith(b"HTTP/1.1 101 ") and b"Sec-WebSocket-Accept: " + accept in head, head
        assert b"Sec-WebSocket-Protocol: mqtt" in head and b"xtensions" not in head, head
        self.frames.receive_bytes(rest)

    def send(self, *frames, step=None):
        raw = b"".join(frames)
        try:
            for at in range(0, len(raw), step or max(len(raw), 1)):
                self.socket.sendall(raw[at:at + (step or len(raw))])
        except (BrokenPipeError, ConnectionResetError):
            pass  # It has ended already; what it said before is still to be read.

    def read(self):
        """Reads once; false at the end."""
        try:
            raw = self.socket.recv(1 << 16)
        except ConnectionResetError:
            raw = b""
        if not raw:
            self.ended = True
            return False
        self.frames.receive_bytes(raw)
        for part in self.frames.received_frames():
            if part.opcode is Opcode.CLOSE:
                self.closed = part.payload[0]
                continue
            self.partial += bytes(part.payload)
            if part.opcode is Opcode.PONG:
                if part.frame_finished:
                    self.pongs.append(self.partial)
                    self.partial = b""
                continue
            assert part.opcode in (Opcode.BINARY, Opcode.CONTINUATION), part.opcode
            self.data += self.partial
            self.partial = b""
        return True

    def read_data(self, length):
        while len(self.data) < length:
            assert self.read(), "it ended after %r of %d bytes" % (self.data[:40], length)

    def read_to_end(self):
        while self.read():
            pass

    def packet(self, length):
        """A PUBLISH packet of exactly this length to the own topic, or nothing."""
        if length == 0:
            return b""
        for digits in range(1, 5):
            remaining = length - 1 - digits
            payload = remaining - 2 - len(self.topic)
            if payload >= 0 and len(varint(remaining)) == digits:
                return packet(0x30, text(self.topic) + (b"*-+." * (payload // 4 + 1))[:payload])
        raise AssertionError("no packet has %d bytes" % length)


def expect(connection, data=b"", pongs=(), code=None):
    """What must come back. With a code the broker ends the connection with it; without, it is still open."""
    if code is None:
        connection.send(frame(PING, b"still there"))
        pongs = [*pongs, b"still there"]
        while len(connection.pongs) < len(pongs) or len(connection.data) < len(data):
            assert connection.read(), "it has ended"
        connection.send(close(1000))
        connection.read_to_end()
        code = 1000
    else:
        connection.read_to_end()
    assert connection.data == data, "%d bytes came, not %d" % (len(connection.data), len(data))
    assert connection.pongs == list(pongs), connection.pongs
    assert connection.closed == code, "closed with %s, not %s" % (connection.closed, code)
    connection.socket.close()


CASES = []


def case(name):
    def add(function):
        CASES.append((name, function))
        return function
    return add


def then(c, good, bad, step=None):
    """A message that is heard, and then what ends the connection: what is under way to a client that is cut off may be lost."""
    c.send(*good, step=step)
    c.read_data(40)
    c.send(*bad, step=step)
    expect(c, c.packet(40), code=1002)


def fragments(payload, size):
    pieces = [payload[at:at + size] for at in range(0, len(payload), size)] or [b""]
    last = len(pieces) - 1
    return [frame(CONTINUATION if at else BINARY, piece, fin=at == last) for at, piece in enumerate(pieces)]


def chopped(name, steps, run):
    """The same at once, in pieces, and byte by byte."""
    for step in steps:
        CASES.append(("%s%s" % (name, " by %s" % step if step else ""), lambda c, step=step: run(c, step)))


# 1: framing. 1.1 is text, 1.2 binary.
for number, length in enumerate((0, 125, 126, 127, 128, 65535, 65536), 1):
    CASES.append(("1.1.%d" % number, lambda c, n=length: (c.send(frame(TEXT, b"*" * n)), expect(c, code=1003))))
    CASES.append(("1.2.%d" % number, lambda c, n=length: (
        c.send(frame(BINARY, c.packet(n))), expect(c, c.packet(n)))))
CASES.append(("1.2.8", lambda c: (c.send(frame(BINARY, c.packet(65536)), step=997), expect(c, c.packet(65536)))))

# 2: pings and pongs.
for number, payload in enumerate((b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125), 1):
    chopped("2.%d" % number, (None, 1), lambda c, step, p=payload: (c.send(frame(PING, p), step=step), expect(c, pongs=[p])))
chopped("2.5", (None, 1), lambda c, step: (c.send(frame(PING, b"\xfe" * 126), step=step), expect(c, code=1002)))
for number, payload in ((7, b""), (8, b"unsolicited")):
    CASES.append(("2.%d" % number, lambda c, p=payload: (c.send(frame(PONG, p)), expect(c))))
CASES.append(("2.9", lambda c: (c.send(frame(PONG, b"unsolicited"), frame(PING, b"ping")), expect(c, pongs=[b"ping"]))))
TEN = [b"payload-%d" % number for number in range(10)]
chopped("2.10-2.11", (None, 1), lambda c, step: (c.send(*(frame(PING, p) for p in TEN), step=step), expect(c, pongs=TEN)))

# 3: reserved bits, on data and on control frames, after a message.
for number, (rsv, opcode) in enumerate(((1, BINARY), (2, BINARY), (3, BINARY), (4, BINARY), (5, BINARY), (6, PING), (7, CLOSE)), 1):
    chopped("3.%d" % number, (None, 1), lambda c, step, rsv=rsv, opcode=opcode: (
        then(c, [frame(BINARY, c.packet(40))], [frame(opcode, c.packet(40), rsv=rsv), frame(PING)], step)))

# 4: reserved opcodes.
for group, opcodes in ((1, range(3, 8)), (2, range(11, 16))):
    for number, opcode in enumerate(opcodes, 1):
        for payload in (b"", b"reserved opcode"):
            CASES.append(("4.%d.%d" % (group, number), lambda c, o=opcode, p=payload: (
                then(c, [frame(BINARY, c.packet(40))], [frame(o, p), frame(PING)]))))

# 5: fragments.
for number, opcode in ((1, PING), (2, PONG)):
    CASES.append(("5.%d" % number, lambda c, o=opcode: (
        c.send(frame(o, b"fragment1", fin=False), frame(CONTINUATION, b"fragment2")), expect(c, code=1002))))


def two(c, step, ping):
    first, last = fragments(c.packet(40), 20)
    c.send(first, *([frame(PING, b"ping")] if ping else []), last, step=step)
    expect(c, c.packet(40), [b"ping"] if ping else [])


chopped("5.3-5.5", (None, 7, 1), lambda c, step: two(c, step, False))
chopped("5.6-5.8", (None, 7, 1), lambda c, step: two(c, step, True))
for number, fin in ((9, True), (10, True), (11, True), (12, False), (13, False), (14, False)):
    step = (None, 7, 1)[(number - 9) % 3]
    CASES.append(("5.%d" % number, lambda c, fin=fin, step=step: (
        c.send(frame(CONTINUATION, c.packet(40), fin=fin), frame(BINARY, c.packet(40)), step=step), expect(c, code=1002))))
CASES.append(("5.15", lambda c: (
    then(c, fragments(c.packet(40), 20), [frame(CONTINUATION, b"late", fin=False), frame(BINARY, c.packet(40))]))))
for number, fin in ((16, False), (17, True)):
    CASES.append(("5.%d" % number, lambda c, fin=fin: (
        c.send(*[frame(CONTINUATION, b"f1", fin=fin), frame(BINARY, b"f2", fin=False), frame(CONTINUATION, b"f3")] * 2),
        expect(c, code=1002))))
CASES.append(("5.18", lambda c: (
    then(c, [frame(BINARY, c.packet(40), fin=False)], [frame(BINARY, c.packet(40))]))))


def five(c, pause):
    pieces = fragments(c.packet(50), 10)
    c.send(*pieces[:2], frame(PING, b"one"))
    time.sleep(pause)
    c.send(*pieces[2:4], frame(PING, b"two"), pieces[4])
    expect(c, c.packet(50), [b"one", b"two"])


CASES += [("5.19", lambda c: five(c, 0.5)), ("5.20", lambda c: five(c, 0))]

# 6: UTF-8. What is well-formed and what is not ends in the same way here: at the first byte of the header.
for name, value in (
        ("6.1.1", b""), ("6.2.1", "Hello-µ@ßöäüàá-UTF-8!!".encode()), ("6.3.1", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80edited"),
        ("6.4.1", b"\xce\xba\xf4\x90\x80\x80"), ("6.5.1", "κόσμε".encode()), ("6.6.1", b"\xce"), ("6.7.1", b"\x00"),
        ("6.8.1", b"\xf8\x88\x80\x80\x80"), ("6.9.1", b"\x7f"), ("6.10.1", b"\xf7\xbf\xbf\xbf"), ("6.11.1", b"\xed\x9f\xbf"),
        ("6.12.1", b"\x80"), ("6.13.1", b"\xc0 \xc1 "), ("6.14.1", b"\xc0"), ("6.15.1", b"\xc0\xe0\x80"), ("6.16.1", b"\xfe"),
        ("6.17.1", b"\xc0\xaf"), ("6.18.1", b"\xc1\xbf"), ("6.19.1", b"\xc0\x80"), ("6.20.1", b"\xed\xa0\x80"),
        ("6.21.1", b"\xed\xa0\x80\xed\xb0\x80"), ("6.22.1", b"\xef\xbf\xbe"), ("6.23.1", b"\xef\xbf\xbd")):
    chopped(name, (None, 1), lambda c, step, v=value: (c.send(frame(TEXT, v), step=step), expect(c, code=1003)))
CASES.append(("6.1.2", lambda c: (c.send(frame(TEXT, fin=False), frame(CONTINUATION)), expect(c, code=1003))))
CASES.append(("6.1.3", lambda c: (
    c.send(frame(BINARY, fin=False), frame(CONTINUATION, c.packet(30), fin=False), frame(CONTINUATION)), expect(c, c.packet(30)))))

# 7: the end.
ENDED = ((), (close(1000),), (frame(PING),), (frame(BINARY, b"\xc0\x00"),), (frame(CONTINUATION, b"late"),))
for number, more in enumerate(ENDED, 1):
    CASES.append(("7.1.%d" % number, lambda c, more=more: (
        c.send(frame(BINARY, c.packet(30))), c.read_data(30), c.send(close(1000), *more), expect(c, c.packet(30), code=1000))))
CASES.append(("7.1.6", lambda c: (
    c.send(frame(BINARY, c.packet(262144)), close(1000)), c.read_to_end(),
    check(c.closed == 1000 and c.packet(262144).startswith(c.data), "closed with %s" % c.closed))))


def check(good, what):
    assert good, what


def no_code(c):
    c.send(frame(CLOSE))
    expect(c, code=1005)  # wsproto's word for a Close without one


CASES.append(("7.3.1", no_code))
CASES.append(("7.3.2", lambda c: (c.send(frame(CLOSE, b"a")), expect(c, code=1002))))
for number, reason in ((3, b""), (4, b"Hello World!"), (5, b"*" * 123)):
    CASES.append(("7.3.%d" % number, lambda c, r=reason: (c.send(close(1000, r)), expect(c, code=1000))))
CASES.append(("7.3.6", lambda c: (c.send(close(1000, b"*" * 124)), expect(c, code=1002))))
CASES.append(("7.5.1", lambda c: (
    c.send(close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")), expect(c, code=1007))))
for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
    CASES.append(("7.7 %d" % code, lambda c, code=code: (c.send(close(code)), expect(c, code=code))))
for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
    CASES.append(("7.9, 7.13 %d" % code, lambda c, code=code: (c.send(close(code)), expect(c, code=1002))))

# 9: limits. 9.1 and 9.3, 9.5, 9.7 are the same with text.
MIB = 1 << 20
CASES.append(("9.1.6", lambda c: (c.send(frame(TEXT, b"*" * (16 * MIB))), expect(c, code=1003))))
for number, length in enumerate((MIB // 16, MIB // 4, MIB, 4 * MIB, 8 * MIB, 16 * MIB), 1):
    CASES.append(("9.2.%d" % number, lambda c, n=length: (
        c.send(frame(BINARY, c.packet(n))), c.read_data(n), expect(c, c.packet(n)))))
for number, size in enumerate((64, 256, 1024, 4096, 16384, 65536, 262144, MIB, 4 * MIB), 1):
    CASES.append(("9.4.%d" % number, lambda c, size=size: (
        c.send(*fragments(c.packet(4 * MIB), size)), c.read_data(4 * MIB), expect(c, c.packet(4 * MIB)))))
for number, step in enumerate((64, 128, 256, 512, 1024, 2048), 1):
    CASES.append(("9.6.%d" % number, lambda c, step=step: (
        c.send(frame(BINARY, c.packet(MIB)), step=step), c.read_data(MIB), expect(c, c.packet(MIB)))))


def round_trips(c, length):
    for number in range(1000):
        c.send(frame(BINARY, c.packet(length)))
        c.read_data((number + 1) * length)
    expect(c, c.packet(length) * 1000)


for number, length in enumerate((0, 16, 64, 256, 1024, 4096), 1):
    CASES.append(("9.8.%d" % number, lambda c, n=length: round_trips(c, n)))

# 10: fragments of a size that nobody chooses.
CASES.append(("10.1.1", lambda c: (c.send(*fragments(c.packet(65536), 1300)), expect(c, c.packet(65536)))))

failed = ran = 0
for name, run in CASES:
    if GROUPS and name.split(".")[0] not in GROUPS:
        continue
    ran += 1
    try:
        run(Connection())
    except (AssertionError, OSError, Exception) as error:  # a case that cannot be finished has failed, whatever the reason
        failed += 1
        print("%s: %s: %s" % (name, type(error).__name__, error))
print("%d cases, %d failed" % (ran, failed))
sys.exit(1 if failed or not ran else 0)
