"""What happens to the process: Ctrl-C, fork, exit, and memory that outlives the broker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

import ottla

if TYPE_CHECKING:
    from pathlib import Path

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def run(program: str, *, timeout: float = 40) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "ignore::RuntimeWarning", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_batches_outlive_broker_topic_and_directory(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    broker = ottla.Broker(directory, durability="os")
    kafka = broker.client()
    kafka.create_topic("t", partitions=1, config={"segment.bytes": 1_048_576})
    for number in range(2000):
        kafka.send_async("t", f"{number:04d}" * 500)
    kafka.flush()
    batches = list(kafka.scan("t"))
    frame = kafka.scan("t").to_polars()
    column = batches[0]["value"]
    kafka.delete_topic("t")
    broker.close()
    shutil.rmtree(directory)
    for number in (0, 999, 1999):
        assert frame["value"][number] == f"{number:04d}".encode() * 500
    assert sum(batch.num_rows for batch in batches) == 2000
    assert column[0] == b"0000" * 500
    assert batches[-1]["value"][-1] == b"1999" * 500


@posix
def test_peers_that_leave_amid_a_response_do_not_end_a_program_with_default_signals() -> None:
    ended = run(
        """
        import signal, socket, struct
        import ottla

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        text = lambda value: struct.pack(">h", len(value)) + value
        # Fetch v4 of one partition, from its start, up to 50 MB.
        fetch = struct.pack(">hhi", 1, 4, 7) + text(b"raw")
        fetch += struct.pack(">iiiibi", -1, 100, 1, 50_000_000, 0, 1) + text(b"t")
        fetch += struct.pack(">iiqi", 1, 0, 0, 50_000_000)
        fetch = struct.pack(">i", len(fetch)) + fetch
        with ottla.Broker() as broker, broker.client() as client:
            client.create_topic("t")
            for _ in range(8):
                client.send("t", bytes(900_000))
            host, port = broker.bootstrap_servers.split(",")[0].rsplit(":", 1)
            for _ in range(20):
                with socket.create_connection((host, int(port))) as peer:
                    peer.sendall(16 * fetch)
                    peer.shutdown(socket.SHUT_WR)
                    assert peer.recv(1)
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            print(client.scan("t").to_pyarrow().num_rows)
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "8\n"), ended.stderr


def test_what_is_closed_says_so(tmp_path: Path) -> None:
    with ottla.Broker(tmp_path / "data") as broker:
        kafka = broker.client()
        scan = kafka.create_topic("t").scan()
    assert broker.closed
    assert kafka.closed
    broker.close()
    for call in (
        lambda: kafka.send("t", "x"),
        kafka.topics,
        lambda: list(scan),
        broker.client,
    ):
        with pytest.raises(ottla.ClosedError):
            call()


def test_a_data_directory_has_one_broker(tmp_path: Path) -> None:
    with (
        ottla.Broker(tmp_path / "data"),
        pytest.raises(ottla.StorageError, match="already open in this process") as caught,
    ):
        ottla.Broker(tmp_path / "data")
    assert str(tmp_path / "data") in str(caught.value)
    assert "reuse=True" in str(caught.value)


def test_a_restart_finds_everything(tmp_path: Path) -> None:
    with ottla.Broker(tmp_path / "data") as broker:
        kafka = broker.client()
        kafka.create_topic("t", partitions=2, config={"retention.ms": "1234567"})
        identity = kafka["t"].describe()["topic_id"]
        for number in range(10):
            kafka.send("t", str(number), partition=number % 2)
        cluster = broker.cluster_id
    with ottla.Broker(tmp_path / "data") as broker:
        kafka = broker.client()
        assert broker.cluster_id == cluster
        assert kafka["t"].describe()["topic_id"] == identity
        assert kafka["t"].config["retention.ms"] == "1234567"
        assert kafka.scan("t").count() == 10
        assert kafka.send("t", "x", partition=0).offset == 5


def test_a_temporary_broker_leaves_nothing() -> None:
    with ottla.Broker() as broker:
        broker.client().send("t", "x")
        directory = broker.data_dir
        assert directory is not None
        assert directory.exists()
    assert not directory.exists()


@posix
@pytest.mark.parametrize(
    "waiting",
    [
        "kafka.consumer('t').poll(None)",
        "next(kafka.consumer('t'))",
        "ottla.connect('127.0.0.1:9').topics(timeout=60)",
    ],
)
def test_ctrl_c_ends_a_wait(waiting: str) -> None:
    program = f"""
        import ottla, sys, time
        kafka = ottla.Broker().client()
        kafka.create_topic("t")
        print("ready", flush=True)
        try:
            {waiting}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore::RuntimeWarning", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.3)  # it has to be inside the wait
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "interrupted\n"
    assert time.monotonic() - begin < 2
    assert child.wait(20) == 0
    child.stdout.close()


def test_a_timeout_is_a_timeout(kafka: ottla.Client) -> None:
    begin = time.monotonic()
    with pytest.raises(TimeoutError) as caught, ottla.connect("127.0.0.1:9") as nowhere:
        nowhere.topics(timeout=0.3)
    assert time.monotonic() - begin < 5
    assert isinstance(caught.value, ottla.TimeoutError)
    assert caught.value.retriable
    with pytest.raises(ottla.ConfigError, match="-1"):
        kafka.topics(timeout=-1)


@posix
def test_a_fork_gets_a_client_that_works_and_no_broker() -> None:
    done = run("""
        import os, sys, ottla
        broker = ottla.Broker()
        kafka, remote = broker.client(), ottla.connect(broker.bootstrap_servers)
        kafka.create_topic("t", partitions=1)
        kafka.send("t", "parent")
        remote.send("t", "parent")
        pending = kafka.send_async("t", "under way")
        child = os.fork()
        if child == 0:
            try:
                assert remote.send("t", "child").offset >= 2
                assert kafka.send("t", "child").offset >= 2
                assert kafka.scan("t").count() >= 4
                for refused in (broker.client, pending.result):
                    try:
                        refused()
                    except ottla.KafkaError as error:
                        assert "fork" in str(error), error
                    else:
                        raise AssertionError(refused)
                broker.close()
                sys.exit(0)
            except BaseException as error:
                if not isinstance(error, SystemExit):
                    print(repr(error), file=sys.stderr)
                    os._exit(1)
                raise
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert kafka.scan("t").count() == 5
        broker.close()
        print("done")
    """)
    assert done.stdout == "done\n", done.stderr
    assert done.returncode == 0, done.stderr


@posix
def test_multiprocessing_works_with_fork() -> None:
    done = run("""
        import multiprocessing, ottla
        broker = ottla.Broker()
        kafka = broker.client()
        kafka.create_topic("t", partitions=2)

        def work(number):
            return kafka.send("t", str(number)).offset is not None

        with multiprocessing.get_context("fork").Pool(3) as pool:
            assert all(pool.map(work, range(30)))
        print(kafka.scan("t").count())
    """)
    assert done.stdout == "30\n", done.stderr
    assert done.returncode == 0, done.stderr


@posix
def test_a_forked_child_decodes_with_threads_of_its_own() -> None:
    done = run("""
        import os, ottla, polars
        broker = ottla.Broker()
        kafka = broker.client(threads=4)
        kafka.create_topic("t", partitions=1)
        kafka.write("t", polars.DataFrame({"id": range(20_000)}), value=ottla.json())
        scan = kafka.scan("t", value={"id": int}, batch_rows=500)
        total = lambda: sum(sum(batch["id"].to_pylist()) for batch in scan)
        assert total() == sum(range(20_000))
        batches = iter(scan)
        next(batches)
        child = os.fork()
        if child == 0:
            os._exit(0 if total() == sum(range(20_000)) else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert sum(batch.num_rows for batch in batches) == 19_500
        broker.close()
        print("done")
    """)
    assert done.stdout == "done\n", done.stderr
    assert done.returncode == 0, done.stderr


def test_the_exit_does_not_wait_for_a_reading_that_was_left() -> None:
    done = run("""
        import ottla, polars
        broker = ottla.Broker()
        kafka = broker.client(threads=4)
        kafka.create_topic("t", partitions=1)
        kafka.write("t", polars.DataFrame({"id": range(20_000)}), value=ottla.json())
        left = iter(kafka.scan("t", value={"id": int}, batch_rows=100))
        print(next(left).num_rows)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "100\n", "")


def test_the_exit_flushes_and_closes(tmp_path: Path) -> None:
    done = run(f"""
        import ottla
        broker = ottla.Broker({str(tmp_path / "data")!r})
        kafka = broker.client(linger_ms=200)
        for number in range(1000):
            kafka.send_async("t", str(number))
    """)
    assert (done.returncode, done.stderr) == (0, "")
    with ottla.Broker(tmp_path / "data") as broker:
        assert broker.client().scan("t").count() == 1000


def test_the_exit_does_not_wait_for_what_cannot_end() -> None:
    begin = time.monotonic()
    done = run("""
        import threading, ottla
        kafka = ottla.Broker().client()
        kafka.create_topic("t")
        waiting = threading.Event()

        def wait():
            consumer = kafka.consumer("t")
            waiting.set()
            try:
                next(consumer)
            except ottla.KafkaError:
                pass

        threading.Thread(target=wait, daemon=True).start()
        waiting.wait()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begin < 30


def test_records_that_cannot_be_sent_are_reported_at_exit() -> None:
    done = run("""
        import ottla
        import ottla._exit
        ottla._exit.FLUSH_SECONDS = 0.5
        with ottla.Broker() as broker:
            kafka = ottla.connect(broker.bootstrap_servers)
            kafka.send("t", "x")
        kafka.send_async("t", "y")
    """)
    assert "could not close" in done.stderr
    assert done.returncode == 0


def test_a_forgotten_client_is_flushed(tmp_path: Path) -> None:
    with ottla.Broker(tmp_path / "data") as broker:
        broker.client(linger_ms=60_000).send_async("t", "x")
    with ottla.Broker(tmp_path / "data") as broker:
        assert broker.client().scan("t").count() == 1


def test_nothing_but_the_library_is_needed() -> None:
    done = run("""
        import sys
        for name in ("pyarrow", "numpy", "pandas", "polars", "duckdb", "tqdm"):
            sys.modules[name] = None
        import ottla
        with ottla.Broker() as broker:
            kafka = broker.client()
            kafka.send("t", '{"a": 1}')
            batch = kafka["t"].head(value=ottla.json({"a": "int64"}))
            assert batch.to_pylist()[0]["a"] == 1
            assert kafka.write("u", batch, value=ottla.json()) == 1
            repr(batch), batch._repr_html_(), kafka["t"]._repr_html_()
            try:
                batch.to_pandas()
            except ModuleNotFoundError as error:
                assert "pip install pandas" in str(error), error
            else:
                raise AssertionError
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_share_a_client(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=3)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(200):
                kafka.send_async(name, str(number))
            kafka.flush(30)
            kafka.scan(name).count()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert kafka.scan(name).count() == 1600
