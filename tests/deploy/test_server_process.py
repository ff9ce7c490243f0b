"""`marl-td serve` as its own process: sockets, odd bytes, slow clients, an end in good order."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from benchmarl_runs import IGNORED

pytestmark = IGNORED


def start(bundle, *options, **environment):
    """A server and its port."""
    command = [sys.executable, "-m", "marl_td", "serve", str(bundle), "--port", "0", *options]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    line = process.stderr.readline()
    found = re.search(r"serving 2 agents on http://\S+:(\d+)/docs", line)
    assert found, line
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", int(found[1])), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    return process, int(found[1])


def stop(process):
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=20)[1], process.returncode


def ask(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def port(bundles):
    process, port = start(bundles("plain"), "--max-body", "4000")
    yield port
    said, code = stop(process)
    assert code == 0 and "Traceback" not in said, said


GOOD = json.dumps({"observation": [1, 1, 1, 1, 1]})


def test_it_acts(port):
    status, body = ask(port, "POST", "/agents/agents_0/act", GOOD)
    assert status == 200 and len(json.loads(body)["action"]) == 2


def test_answers_are_not_held_back(port):
    """Without TCP_NODELAY every answer but the first waits 40 ms for the client's acknowledgement."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    took = []
    for _ in range(20):
        begin = time.perf_counter()
        connection.request(
            "POST", "/agents/agents_0/act", GOOD, {"content-type": "application/json"}
        )
        connection.getresponse().read()
        took.append(time.perf_counter() - begin)
    connection.close()
    assert min(took[1:]) < 0.03


def test_bytes_that_are_no_http_do_not_hurt(port):
    for sent in (b"\x00" * 100, b"GET\r\n\r\n", b"A" * 200_000, b"\x16\x03\x01\x02\x00\x01"):
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            try:
                plain.sendall(sent)
                plain.shutdown(socket.SHUT_WR)
                answered = plain.recv(100)
            except OSError:  # closed while we were still sending
                answered = b""
            assert answered in (b"",) or b" 400 " in answered
    assert ask(port, "GET", "/health")[0] == 200


def test_an_endless_body_is_cut_off(port):
    with socket.create_connection(("127.0.0.1", port), 10) as endless:
        head = "POST /act HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        endless.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        sent = 0
        try:
            while sent < 10_000_000:
                endless.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
                sent += 1024
        except OSError:
            pass
        else:
            pytest.fail("ten megabytes were taken")
    assert ask(port, "GET", "/health")[0] == 200


def test_a_client_that_goes_away_is_forgotten(port):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), 5) as gone:
            gone.sendall(b"POST /act HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\n{")
    time.sleep(0.2)
    status, body = ask(port, "GET", "/metrics")
    assert status == 200 and b"marl_td_requests_in_flight 1\n" in body and b'status="5' not in body


def test_many_clients_at_once_are_answered(port):
    found = []

    def client():
        found.extend(ask(port, "POST", "/agents/agents_1/act", GOOD)[0] for _ in range(20))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 160


def test_it_ends_in_good_order_and_the_token_may_come_from_the_environment(bundles):
    token = "a-token-of-the-environment"
    process, port = start(bundles("plain"), "--host", "0.0.0.0", MARL_TD_TOKEN=token)
    try:
        assert ask(port, "POST", "/agents/agents_0/act", GOOD)[0] == 401
        status, _ = ask(port, "POST", "/agents/agents_0/act", GOOD, authorization=f"Bearer {token}")
        assert status == 200
    finally:
        said, code = stop(process)
    assert code == 0 and said == ""
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "other machines can reach '0.0.0.0', so a token is needed"),
        (["--token", "short"], "the token must have at least 16 characters"),
        (["--port", "70000"], "--port must be a number from 0 to 65535; got 70000"),
        (["--max-batch", "0"], "max_batch must be at least 1"),
    ],
)
def test_bad_options_end_with_one_sentence(bundles, options, message, capfd, monkeypatch):
    from marl_td.cli import main

    monkeypatch.delenv("MARL_TD_TOKEN", raising=False)
    assert main(["serve", str(bundles("plain")), *options]) == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_port_that_is_taken_and_a_folder_that_is_no_bundle_are_said(bundles, tmp_path, capfd):
    from marl_td.cli import main

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        assert main(["serve", str(bundles("plain")), "--port", taken]) == 2
    assert f"cannot listen on 127.0.0.1, port {taken}" in capfd.readouterr().err
    assert main(["serve", str(tmp_path)]) == 2
    assert "is no bundle: it has no manifest.json" in capfd.readouterr().err
