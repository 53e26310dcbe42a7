"""How the comparison with the peers evaluates figures, without measuring any."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from versus import compare
from versus.measure import (
    BROKER_CPU,
    CLIENT_LIMIT,
    EMBEDDED,
    KAFKA,
    MACHINE,
    MEMCPY,
    OTTLA,
    TO_ARROW,
    TUNED,
    Results,
)
from versus.routes import code_lines
from versus.targets import Verdict, judged

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PRODUCED = f"produce, confluent-kafka, 100 B: {BROKER_CPU}"


def results(*, rows: float = 30e6, cpu: float = 1.0) -> Results:
    found = Results()
    for noise in (0.5, 1.0, 7.0):  # medians, not means
        found.add(MEMCPY, MACHINE, 9.0 * noise)
        found.add(TO_ARROW, EMBEDDED, rows * noise)
        found.add(TO_ARROW, TUNED, 1e6 * noise)
        found.add(PRODUCED, OTTLA, cpu * noise, lower=True)
        found.add(PRODUCED, KAFKA, 3.5 * noise, lower=True)
        found.explain(f"produce, confluent-kafka, 100 B: {CLIENT_LIMIT}", OTTLA, 0.95)
    return found


def verdict(found: Results, label: str) -> Verdict:
    return next(each for each in judged(found) if each.target.label.startswith(label))


def test_a_target_holds_when_every_case_reaches_it() -> None:
    found = results()
    assert verdict(found, "topic to Arrow, embedded").holds is True
    assert verdict(found, "broker CPU per GiB produced").holds is True
    assert verdict(found, "throughput at the client's own limit").holds is True
    assert verdict(found, "ready: within").holds is None


def test_a_target_fails_with_its_worst_case() -> None:
    found, other = results(), f"produce, Java perf test, 100 B: {BROKER_CPU}"
    found.add(other, OTTLA, 2.0, lower=True)
    found.add(other, KAFKA, 4.0, lower=True)
    said = verdict(found, "broker CPU per GiB produced")
    assert (said.holds, said.failing, said.worst) == (False, 1, other)
    assert said.cases[other] == 2.0


def test_ratios_are_against_the_peer_and_against_the_machine() -> None:
    found = results()
    peers, machine = compare.against_peers(found), compare.against_machine(found)
    assert peers[f"{TO_ARROW} | {EMBEDDED} against {TUNED}"] == 30
    assert peers[f"{PRODUCED} | {OTTLA} against {KAFKA}"] == 3.5
    assert not any(CLIENT_LIMIT in name for name in peers)
    assert machine[f"{TO_ARROW} | {EMBEDDED} against memcpy"] == 30e6 * 150 / 1e9 / 9
    assert machine[f"{PRODUCED} | {OTTLA} against memcpy"] == (1 << 30) / 1e9 / 9


def test_a_ratio_that_fell_or_went_missing_is_lost() -> None:
    found = compare.changes({"a": 10.0, "b": 10.0, "gone": 1.0}, {"a": 8.9, "b": 9.1, "new": 1.0})
    assert [change.name for change in found] == ["a", "b", "gone", "new"]
    assert [change.lost(0.1) for change in found] == [True, False, True, False]


def write(path: Path, found: Results, machine: str = "a machine") -> str:
    ratios = {**compare.against_peers(found), **compare.against_machine(found)}
    path.write_text(json.dumps({"machine": machine, "ratios": ratios}))
    return str(path)


def test_the_command_fails_on_a_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = write(tmp_path / "main.json", results())
    same = write(tmp_path / "same.json", results(rows=28e6))
    slower = write(tmp_path / "slower.json", results(rows=20e6), "another machine")
    assert compare.main([main, same]) == 0
    assert "LOST" not in capsys.readouterr().out
    assert compare.main([main, slower]) == 1
    printed = capsys.readouterr()
    lost = [line for line in printed.out.splitlines() if line.endswith("LOST")]
    assert len(lost) == 2
    assert all(TO_ARROW in line for line in lost)
    assert "different machines" in printed.err
    assert compare.main([main, slower, "--threshold", "0.5"]) == 0


def test_runs_without_a_common_ratio_are_refused(tmp_path: Path) -> None:
    main = write(tmp_path / "main.json", results())
    assert compare.main([main, write(tmp_path / "none.json", Results())]) == 2


def test_lines_of_code_are_those_that_a_user_writes() -> None:
    lines = {name: code_lines("table_route.py", name) for name in ("ottla_table", "by_polars")}
    assert lines == {"ottla_table": 5, "by_polars": 8}
