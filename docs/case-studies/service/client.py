"""Ask the service 3,000 times, popular records more often, and report each latency (docs/workloads.md)."""

import os
import random
import socket
import time

COUNT = 20_000
DRAW = random.Random()  # every run asks for other records
REPORT = int(os.environ["ACON_REPORT_FD"])

with socket.create_connection(("127.0.0.1", 8000)) as connection, connection.makefile("rwb") as service:
    for _ in range(30):
        lines = []
        for request in range(100):
            verb = "set" if request % 10 == 0 else "get"
            number = int(COUNT * DRAW.random() ** 3)
            start = time.perf_counter_ns()
            service.write(f"{verb} {number}\n".encode())
            service.flush()
            answer = service.readline()
            lines.append(f"latency {verb} {time.perf_counter_ns() - start}\n")
            assert answer.startswith(f'{{"number": {number},'.encode()), answer
        os.write(REPORT, "".join(lines).encode())
