"""The notebook of a user's own image, run by papermill: a command of busybox, and redis as `docker save` writes it."""

from __future__ import annotations

import html
import json

import pytest

from acon_nb import reports, results
from acon_nb.jupyter import notebooks
from tests.notebooks.pages import shown
from tests.system.engines import saved_redis

pytestmark = [pytest.mark.system, pytest.mark.weekly]


def test_it_answers_which_swap_an_image_needs(tmp_path):
    page = tmp_path / "image.html"
    work = "yes 0123456789abcdef | head -c 24m > /tmp/data && cksum /tmp/data"
    parameters = {
        "command": ["sh", "-c", work],
        "at": ["0.6x"],
        "setups": ["none", "zram-lz4"],
        "seeds": 1,
        "out": str(tmp_path / "out"),
    }
    lines = reports.make(notebooks.folder() / "08_your_image.ipynb", page, parameters)
    assert lines[0].startswith("Peak: ")
    assert any(line.startswith("At 0.6x: zram-lz4 is the only one that gets through") for line in lines)
    assert any("none at 0.6x" in line and "out of memory in 1 of 1 runs" in line for line in lines)
    rows = results.load(tmp_path / "out", "swap", "image-busybox")
    assert set(rows["factor_workload"]) == {"program", "codec"}
    assert "Its pages compress by" in html.unescape(shown(page))
    assert "widgets" not in json.loads((tmp_path / "image.ipynb").read_text())["metadata"]


def test_it_answers_for_a_server_from_docker_save(tmp_path):
    page = tmp_path / "redis.html"
    (tmp_path / "engine").mkdir()
    with saved_redis(tmp_path / "engine") as (archive, _):
        kept = archive.rename(tmp_path / "redis.tar")
    parameters = {
        "image": f"docker-archive:{kept}",
        "command": [],
        "driver": ["redis-benchmark", "-n", "30000", "-r", "100000000", "-d", "1500", "-t", "set", "-q"],
        "ready": "port:6379",
        "at": ["0.7x"],
        "setups": ["none", "zram-zstd"],
        "seeds": 1,
        "out": str(tmp_path / "out"),
    }
    lines = reports.make(notebooks.folder() / "08_your_image.ipynb", page, parameters)
    assert any(line.startswith("At 0.7x: zram-zstd is the only one that gets through") for line in lines)
    rows = results.load(tmp_path / "out", "swap", "image-redis")
    assert set(rows["factor_driver"]) >= {"redis-benchmark -n 30000 -r 100000000 -d 1500 -t set -q"}
    assert "none at 0.7x" in html.unescape(shown(page))
