"""A catalogue in memory: makes its records, then answers `get NUMBER` and `set NUMBER` with JSON, line by line."""

import json
import random
import socketserver

COUNT = 20_000
DRAW = random.Random(1)
WORDS = [f"{DRAW.choice('bcdfghklmnprst')}{DRAW.choice('aeiou')}{DRAW.randrange(10**5):x}" for _ in range(2000)]


def record(number: int) -> dict[str, object]:
    """Make a record: what a shop knows of an article."""
    return {
        "number": number,
        "name": " ".join(DRAW.choices(WORDS, k=3)),
        "price": DRAW.randrange(100, 100_000) / 100,
        "stock": {place: DRAW.randrange(500) for place in ("north", "south", "west")},
        "tags": DRAW.choices(WORDS, k=5),
        "text": " ".join(DRAW.choices(WORDS, k=40)),
    }


class Answer(socketserver.StreamRequestHandler):
    """Answers the requests of a connection."""

    def handle(self) -> None:
        """Answer until the client closes the connection."""
        for line in self.rfile:
            verb, number = line.split()
            if verb == b"set":
                RECORDS[int(number)] = record(int(number))
            self.wfile.write(json.dumps(RECORDS[int(number)]).encode() + b"\n")


RECORDS = {number: record(number) for number in range(COUNT)}
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(("127.0.0.1", 8000), Answer).serve_forever()
