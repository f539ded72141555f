"""W&B disappears mid-run, with its real client: training does not wait, and no logged data is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLLOW = """
import json, sys, time
from dropattack.tracking import guard, wandb
guard.FINISH_SECONDS, wandb.FINISH_SECONDS = float(sys.argv[2]), 1
tracker = guard.Guarded(wandb.WandbTracker(project="test", folder=sys.argv[1]))
tracker.start({"seed": 1}, name="n", group="g", tags=["t"])
for step in (1, 2):
    tracker.log({"mark": 7000000 + step}, step=step)  # wandb sends a step when the next one comes
print("ready", flush=True)
sys.stdin.readline()
times = [time.monotonic()]
for step in range(3, 7):
    tracker.log({"mark": 7000000 + step}, step=step)
times.append(time.monotonic())
tracker.finish({"test/accuracy": 0.5})
times.append(time.monotonic())
print(json.dumps([b - a for a, b in zip(times, times[1:])]), flush=True)
"""


class Server(ThreadingHTTPServer):
    """Answer the client's requests at the start of a run, until told to hang or stop."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state, self.streamed = "answers", threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.state == "hangs":
            threading.Event().wait(60)
        if self.server.state != "answers":
            return  # the connection is closed without an answer
        if self.path.endswith("file_stream"):
            self.server.streamed.set()
        project = {"id": "p", "name": "test", "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "b", "name": "", "displayName": "n", "config": "{}", "historyLineCount": 0, "project": project}
        if b"upsertBucket" in body:
            bucket["name"] = json.loads(body)["variables"]["name"]
        answer = json.dumps({"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def follow(tmp_path: Path, folder: Path | None = None, limit: float = 5.0, **environment: str) -> subprocess.Popen:
    """Start tracking a run in a separate process with an empty home folder, and wait until it has logged once.

    `limit` is the guard's, in seconds; W&B's own is one second.

    Its words go to files: a pipe would stay open as long as wandb's service lives.

    Returns:
        The process, which waits for its standard input.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC", "XDG"))}
    kept |= {"HOME": str(tmp_path / "home"), "WANDB_ERROR_REPORTING": "false"}
    (tmp_path / "home").mkdir()
    with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", FOLLOW, str(folder or tmp_path / "outputs"), str(limit)], cwd=ROOT,
            stdin=subprocess.PIPE, stdout=out, stderr=err, env={**kept, **environment},
        )  # fmt: skip
    while "ready" not in (tmp_path / "out").read_text():
        assert process.poll() is None, (tmp_path / "err").read_text()
        time.sleep(0.05)
    return process


def ended(process: subprocess.Popen, tmp_path: Path) -> tuple[list[float], str]:
    """Return the seconds of logging and finishing, and stderr; the process must end by itself."""
    process.stdin.write(b"\n")
    process.stdin.close()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
    err = (tmp_path / "err").read_text()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return json.loads((tmp_path / "out").read_text().splitlines()[-1]), err


@pytest.mark.parametrize("fate", ["hangs", "gone"])
def test_a_server_that_goes_away(tmp_path, fate):
    server = Server()
    process = follow(tmp_path, WANDB_BASE_URL=f"http://127.0.0.1:{server.server_port}", WANDB_API_KEY="0" * 40)
    assert server.streamed.wait(30), "the run did not start online"
    server.state = fate
    if fate == "gone":
        server.shutdown()
        server.server_close()
    (logging, finishing), err = ended(process, tmp_path)
    assert logging < 1
    assert finishing < 5
    assert err.count("\n") == 1
    assert "the server did not receive everything; run `wandb sync`" in err
    (kept,) = (tmp_path / "outputs").rglob("run-*/*.wandb")
    content = kept.read_bytes()
    assert all(str(7000000 + step).encode() in content for step in range(1, 7))


@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, "Error"), (signal.SIGSTOP, "no answer")])
def test_a_service_that_dies_or_hangs(tmp_path, number, said):
    """W&B sends everything through a separate process, which can fail on its own."""
    limit = 5.0 if number == signal.SIGKILL else 1.0  # a service that hangs is waited for until then
    process = follow(tmp_path, limit=limit, WANDB_MODE="offline")
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    (service,) = (int(pid) for pid, parent, name in rows if int(parent) == process.pid and "wandb" in name)
    os.kill(service, number)
    try:
        (logging, finishing), err = ended(process, tmp_path)
    finally:
        if number == signal.SIGSTOP:
            os.kill(service, signal.SIGKILL)
    assert logging < 1
    assert finishing < 6
    assert err.count("tracking stopped") == err.count("\n") == 1
    assert said in err


def test_a_disk_that_fills_up(small_disk, tmp_path):
    """On a full disk, W&B itself would print one traceback per line."""
    process = follow(tmp_path, small_disk, WANDB_MODE="offline")
    with suppress(OSError), open(small_disk / "ballast", "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    (logging, finishing), err = ended(process, tmp_path)
    assert logging < 1
    assert finishing < 6
    assert err.count("\n") <= 1
