"""The catalogue against the trees in reach: 6.1, 6.12, the series that is nearest to 6.18, and the newest."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from acon_nb import kernel
from acon_nb.cache import Cache
from acon_nb.kernel import features, source
from acon_nb.kernel.build import _configure, _plan, symbols_of
from acon_nb.progress import silent

pytestmark = [pytest.mark.system, pytest.mark.weekly]
Series = tuple[int, int]


def distance(wanted: Series) -> Callable[[Series], tuple[int, int]]:
    """How far a series is from another one: 6.19 was followed by 7.0."""
    return lambda series: (abs(series[0] - wanted[0]), abs(series[1] - wanted[1]))


@pytest.fixture(scope="module", params=["6.1", "6.12", "nearest to 6.18", "newest"])
def tree(request: pytest.FixtureRequest, store: Cache) -> str:
    """The name of a source; of two series that are equally far from 6.18 the later one."""
    rows = {
        (int(match[1]), int(match[2])): row.source
        for row in kernel.packaged(cache=store).sources
        if row.newest and "~" not in row.version and (match := re.match(r"debian:(\d+)\.(\d+)", row.source))
    }
    later = {series: name for series, name in rows.items() if series > (6, 12)}
    if request.param == "newest":
        return rows[max(rows)]
    if request.param.startswith("nearest"):
        return later[min(later, key=distance((6, 18)))]
    major, minor = map(int, request.param.split("."))
    if (major, minor) not in rows:
        pytest.skip(f"no suite in reach has {request.param}")
    return rows[major, minor]


@pytest.mark.parametrize("group", sorted(features.tables()))
def test_a_group_is_applied_with_the_groups_that_it_needs_and_no_fewer(tree: str, group: str, store: Cache) -> None:
    needs = features.tables()[group].needs
    assert failed((*needs, group), tree, store) == {}
    for needed in needs:
        fewer = tuple(one for one in needs if one != needed)
        if all(needed not in features.tables()[one].needs for one in fewer):
            assert failed((*fewer, group), tree, store), f"{group} does not need {needed}"


@pytest.mark.parametrize("profile", kernel.PROFILES)
def test_a_profile_is_applied(tree: str, profile: str, store: Cache) -> None:
    assert failed((profile,), tree, store) == {}


def test_each_row_names_an_option_of_the_series_that_it_applies_to(tree: str, store: Cache) -> None:
    """Those with a lower bound of versions, too: the options of a row are there from `since` and until `until`."""
    fetched = source.fetch(tree, cache=store)
    symbols = symbols_of(fetched, store)
    unknown = {
        row.option
        for row in kernel.catalogue()
        if not row.rule and row.group != "delay-disk" and row.since <= fetched.version < row.until
        if row.option not in symbols and row.option not in MAY_BE_ABSENT
    }
    assert unknown == set()


# Options that only some releases of a series have (stable kernels rename, too), or that went between 6.12 and 7.3
MAY_BE_ABSENT = {
    "SPECULATION_MITIGATIONS", "CPU_MITIGATIONS", "PROC_SYSCTL", "BALLOON_COMPACTION", "PCIE_BUS_TUNE_OFF",
}  # fmt: skip


def failed(profiles: tuple[str, ...], tree: str, store: Cache) -> dict[str, str]:
    """What was requested and not applied, with the reason; without the proposals of `kernel.check`, which take time."""
    plan = _plan(kernel.BuildSpec(profiles=profiles, source=tree), store, silent, None, refuse=False)
    rows, _ = _configure(plan, store, None)
    return {row.option: row.why for row in rows if not row.ok and not row.optional}
