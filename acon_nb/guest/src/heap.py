"""A Python program with a heap like any other's: parsed JSON, tables, text, objects; says "ready" and waits."""

import collections
import json
import random
import sys

draw = random.Random(7)
words = [line.split()[0] for line in (__doc__ or "").splitlines() for _ in range(40) if line.split()]
words += ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 11))) for _ in range(4000)]


class Person:
    """One record."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"{draw.choice(words)} {draw.choice(words)}"
        self.tags = draw.sample(words, 4)
        self.scores = [draw.random() for _ in range(12)]


people = [Person(number) for number in range(9000)]
text = json.dumps([vars(person) for person in people])
parsed = json.loads(text)
counts = collections.Counter(tag for person in people for tag in person.tags)
index = {person["name"]: person for person in parsed}
lines = [" ".join(draw.choices(words, k=14)) for _ in range(8000)]
sys.stdout.write(f"ready {len(text)} {len(counts)} {len(index)} {len(lines)}\n")
sys.stdout.flush()
sys.stdin.read()
