"""Watching a topic in a notebook: what is asked, what is shown, and when it stops."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ottla
from processes import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = Path(ottla.__file__).with_name("_watch.js")
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def orders(kafka: ottla.Client, name: str) -> ottla.Topic:
    topic = kafka.create_topic(name, partitions=2)
    for number in range(6):
        # In the order of the partitions where the time is the same.
        kafka.send(name, f'{{"id": {number}}}', partition=number // 3)
    return topic


def values(watch: ottla.TopicWatch, column: str = "value") -> list[str]:
    at = watch.state["tail"]["columns"].index(column)
    return [row[at] for row in watch.state["tail"]["rows"]]


def test_it_shows_the_newest_records_and_rates(kafka: ottla.Client, orders: ottla.Topic) -> None:
    with orders.watch(rows=3, groups=[]) as watch:
        assert values(watch) == [f'{{"id": {number}}}' for number in (3, 4, 5)]
        assert watch.state["records"] == 6
        assert (watch.state["rate"], watch.state["history"]) == (None, [])
        kafka.send(orders.name, '{"id": 6}', partition=1)
        watch.refresh()
        assert values(watch) == [f'{{"id": {number}}}' for number in (4, 5, 6)]
        assert watch.state["records"] == 7
        assert watch.state["history"] == [watch.state["rate"]]
        assert watch.state["history"][0] > 0
        [first, second] = watch.state["partitions"]
        assert (first[:3], second[:3]) == ([0, 0, 3], [1, 0, 4])
        assert (first[3], second[3] > 0) == (0, True)
        json.dumps(watch.state)


def test_it_reads_only_what_is_new(
    kafka: ottla.Client, orders: ottla.Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[dict[int, int], dict[int, int]]] = []
    scan = ottla.Client.scan

    def spied(self: ottla.Client, *arguments: Any, **options: Any) -> Any:
        asked.append((options["start"], options["end"]))
        return scan(self, *arguments, **options)

    monkeypatch.setattr(ottla.Client, "scan", spied)
    with orders.watch(rows=2, groups=[]) as watch:
        assert asked == [({0: 1, 1: 1}, {0: 3, 1: 3})]
        watch.refresh()
        assert len(asked) == 1, "nothing is new"
        for _ in range(5):
            kafka.send(orders.name, "more", partition=1)
        watch.refresh()
        assert asked[1:] == [({1: 6}, {1: 8})], "no more than it shows"
        assert values(watch) == ["more", "more"]


def test_a_topic_that_was_created_again_begins_anew(
    kafka: ottla.Client, orders: ottla.Topic
) -> None:
    with orders.watch(groups=[]) as watch:
        orders.delete()
        kafka.create_topic(orders.name, partitions=2)
        kafka.send(orders.name, "new", partition=1)
        watch.refresh()
        assert values(watch) == ["new"]


def test_values_become_columns_and_texts(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.send(name, '{"id": 1, "offset": "far"}', key=b"\xff\x01")
    kafka.send(name, "no JSON" + "!" * 1000)
    with kafka[name].watch(value=ottla.json({"id": "int64", "offset": "utf8"})) as watch:
        columns, [good, bad] = watch.state["tail"]["columns"], watch.state["tail"]["rows"]
        shown = dict(zip(columns, good, strict=True))
        assert (shown["id"], shown["offset"], shown["_kafka.offset"]) == ("1", "far", "0")
        assert shown["_kafka.key"] == "0xff01"
        assert shown["_kafka.error"] == ""
        wrong = dict(zip(columns, bad, strict=True))
        assert "not JSON" in wrong["_kafka.error"]
        assert len(wrong["_kafka.value_raw"]) == 200


@pytest.fixture
def alone() -> Iterator[ottla.Client]:
    """A client of a broker with a topic and no groups."""
    with ottla.Broker() as broker, broker.client() as kafka:
        kafka.write("orders", [{"id": number} for number in range(6)])
        yield kafka


def test_groups_of_the_topic_have_their_lag(alone: ottla.Client) -> None:
    alone.groups.reset("etl", "orders", "earliest")
    with alone["orders"].watch() as watch:
        assert watch.state["groups"] == [["etl", "Empty", 0, 6]]
        alone.groups.reset("etl", "orders", "latest")
        watch.refresh()
        assert watch.state["groups"] == [["etl", "Empty", 0, 0]]
        assert watch.state["groups_not_asked"] == 0
        assert "not asked" not in watch._repr_html_()
    with alone["orders"].watch(groups=["nobody"]) as watch:
        assert watch.state["groups"] == [["nobody", "", 0, None]]


@pytest.mark.parametrize(("topic", "shown", "left"), [("other", 0, 10), ("orders", 10, 50)])
def test_groups_that_were_not_asked_for_are_counted(
    alone: ottla.Client, topic: str, shown: int, left: int
) -> None:
    alone.send("other", "one")
    for number in range(60):
        alone.groups.reset(f"group-{number:02}", topic, "earliest")
    with alone["orders"].watch() as watch:
        assert len(watch.state["groups"]) == shown
        assert watch.state["groups_not_asked"] == left
        assert f"{left} more groups were not asked for" in watch._repr_html_()
        watch.refresh()
        assert watch.state["groups_not_asked"] == left


def test_html_without_a_widget_escapes_what_records_say(
    kafka: ottla.Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    kafka.create_topic(name, partitions=1)
    kafka.send(name, "<script>alert(1)</script>")
    with kafka[name].watch() as watch:
        shown = watch._repr_mimebundle_()
        assert set(shown) == {"text/plain", "text/html"}
        assert "&lt;script&gt;" in shown["text/html"]
        assert "<script>" not in shown["text/html"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rows": 0}, "rows=0"),
        ({"rows": 101}, "1 to 100"),
        ({"every": 0.01}, "every=0.01"),
        ({"groups": "etl"}, "one string"),
        ({"groups": [str(n) for n in range(11)]}, "at most 10"),
    ],
)
def test_what_has_no_bound_is_refused(
    orders: ottla.Topic, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ottla.ConfigError, match=says):
        orders.watch(**options)


def test_a_missing_topic_is_an_error_at_once(kafka: ottla.Client) -> None:
    with pytest.raises(ottla.UnknownTopicError):
        kafka["nowhere"].watch()


@pytest.fixture
def anywidget() -> None:
    try:
        import anywidget  # noqa: F401
    except ImportError:
        missing("anywidget", 'pip install "ottla[widget]"')


def here(watch: ottla.TopicWatch) -> None:
    """Say what the page says while it shows the widget."""
    assert watch._live is not None
    watch._live.widget._handle_custom_msg({"here": True}, [])


def thread_of(watch: ottla.TopicWatch) -> threading.Thread | None:
    assert watch._live is not None
    return watch._live._thread


def when(watch: ottla.TopicWatch, holds: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until the page is told a state."""
    assert watch._live is not None
    widget, told = watch._live.widget, threading.Event()

    def look(_: object = None) -> None:
        if holds(widget.state):
            told.set()

    widget.observe(look, "state")
    look()
    assert told.wait(30)


@pytest.mark.usefixtures("anywidget")
def test_the_widget_asks_while_a_page_shows_it(
    kafka: ottla.Client, orders: ottla.Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = orders.watch(every=0.1, groups=[])
    data, _ = watch._repr_mimebundle_()
    assert {WIDGET, "text/html"} <= set(data)
    live = watch._live
    assert live is not None
    assert thread_of(watch) is None, "nobody shows it, so nothing is asked"
    assert "here" in live.widget._esm
    here(watch)
    kafka.send(orders.name, '{"id": 6}')
    when(watch, lambda state: state["records"] == 7)
    # A page that is gone says nothing any more.
    thread = thread_of(watch)
    assert thread is not None
    monkeypatch.setattr("ottla._watching._GONE_SECONDS", 0.0)
    thread.join(30)
    assert not thread.is_alive()
    # It may come back.
    monkeypatch.undo()
    kafka.send(orders.name, '{"id": 7}')
    here(watch)
    when(watch, lambda state: state["records"] == 8)
    thread = thread_of(watch)
    assert thread is not None
    watch.close()
    thread.join(30)
    assert not thread.is_alive()
    here(watch)
    assert thread_of(watch) is None
    with pytest.raises(ottla.ClosedError):
        watch.refresh()
    assert WIDGET not in watch._repr_mimebundle_()


@pytest.mark.usefixtures("anywidget")
def test_the_widget_says_what_is_wrong_and_goes_on(
    kafka: ottla.Client, orders: ottla.Topic
) -> None:
    with orders.watch(every=0.1, groups=[]) as watch:
        watch._repr_mimebundle_()
        orders.delete()
        here(watch)
        when(watch, lambda state: state["error"] is not None and orders.name in state["error"])
        kafka.create_topic(orders.name, partitions=1)
        when(watch, lambda state: state["error"] is None and state["records"] == 0)


PAGE = """
class Node {
  constructor(name) { this.name = name; this.children = []; this.attributes = {}; this.text = ""; }
  set textContent(text) { this.text = text; }
  set innerHTML(text) { throw new Error("texts of records are no HTML"); }
  setAttribute(name, value) { this.attributes[name] = value; }
  appendChild(child) { this.children.push(child); }
  replaceChildren(...children) { this.children = children; }
  querySelector(name) { return this.all().find((one) => one.name === name); }
  all() { return this.children.flatMap((one) => [one, ...one.all()]); }
}
globalThis.document = {
  hidden: false,
  createElement: (name) => new Node(name),
  createElementNS: (_, name) => new Node(name),
};
const { default: widget } = await import(process.argv[2]);
const told = [];
const listeners = new Set();
let state = JSON.parse(process.argv[3]);
const model = {
  get: (name) => (name === "state" ? state : 1000000),
  send: (message) => told.push(message),
  on: (_, listener) => listeners.add(listener),
  off: (_, listener) => listeners.delete(listener),
};
const el = new Node("div");
const texts = () => el.all().map((one) => one.text).filter(Boolean);
const end = widget.render({ model, el });
const first = texts();
state = { ...state, records: 4321, error: "away" };
listeners.forEach((listener) => listener());
const second = texts();
end();
console.log(JSON.stringify({ first, second, told, left: listeners.size }));
"""


def test_the_page_shows_texts_and_says_that_it_is_there(
    kafka: ottla.Client, name: str, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None:
        missing("node", "apt-get install nodejs")
    kafka.create_topic(name, partitions=1)
    kafka.send(name, "<b>bold</b>")
    kafka.groups.reset(f"{name}-etl", name, "earliest")
    module = tmp_path / "watch.mjs"
    module.write_bytes(SCRIPT.read_bytes())
    with kafka[name].watch(groups=[f"{name}-etl"]) as watch:
        watch.refresh()
        watch.refresh()
        state = json.dumps(watch.state)
    page = tmp_path / "page.mjs"
    page.write_text(PAGE)
    done = subprocess.run(
        [str(node), str(page), module.as_uri(), state],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert "<b>bold</b>" in shown["first"]
    assert f"{name}-etl" in shown["first"]
    assert any("1 records" in text for text in shown["first"])
    assert "away" in shown["second"]
    assert any("4,321 records" in text for text in shown["second"])
    assert shown["told"] == [{"here": True}]
    assert shown["left"] == 0
