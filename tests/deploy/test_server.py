"""The server: actions, batches, sessions, limits and refusals, in process."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from asgi_client import AsgiClient
from benchmarl_runs import IGNORED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_requests import Described
from served import CENTRE, JOINT, OWN, changed

from marl_td.deploy import load_bundle
from marl_td.deploy.server import PolicyServer
from marl_td.deploy.server_gate import Rates
from marl_td.deploy.server_sessions import Sessions
from marl_td.deploy.server_settings import Refused, ServerSettings, is_loopback, settings_for

pytestmark = IGNORED
TOKEN = "0123456789abcdef"
JSON = {"content-type": "application/json"}
SEVERAL = pytest.param("entries", marks=pytest.mark.slow)


def client_of(folder, **limits):
    server = PolicyServer(load_bundle(folder), ServerSettings(**limits))
    return AsgiClient(server.app)


@pytest.fixture(scope="module")
def clients(bundles):
    made = {}

    def client(kind):
        if kind not in made:
            made[kind] = client_of(bundles(kind), rate=0)
        return made[kind]

    return client


def observations(client, rows=None, seed=0):
    """Random observations of the first agent, and masks where it has them."""
    agents = client.get("/signature").json()["agents"]
    name, agent = next(iter(agents.items()))
    rng = np.random.default_rng(seed)
    shape = () if rows is None else (rows,)
    observation = 3 * rng.normal(size=(*shape, *agent["observation"][0]["shape"]))
    body = {"observation": observation.round(3).tolist()}
    if agent["mask"] is not None:
        mask = rng.random((*shape, *agent["mask"]["shape"])) < 0.5
        mask[..., 0] = True
        body["mask"] = mask.tolist()
    return name, body


# ------------------------------------------------------------------ actions
@pytest.mark.parametrize("kind", ["plain", "memory"])
@pytest.mark.parametrize("rows", [None, 1, 7, 200])
def test_it_acts_as_the_bundle_does(clients, bundles, kind, rows):
    client = clients(kind)
    name, body = observations(client, rows)
    found = client.post(f"/agents/{name}/act", json=body)
    assert found.status_code == 200
    policy = load_bundle(bundles(kind)).agents[name]
    action, state = policy.act(body["observation"], None, body.get("mask"))
    np.testing.assert_allclose(found.json()["action"], action, rtol=1e-6)
    assert ("state" in found.json()) == (state is not None)


def test_several_agents_at_once_act_as_each_by_itself(clients):
    client = clients("plain")
    names = list(client.get("/signature").json()["agents"])
    bodies = {name: observations(client, seed=i)[1] for i, name in enumerate(names)}
    joint = client.post("/act", json={"agents": bodies}).json()["agents"]
    for name, body in bodies.items():
        alone = client.post(f"/agents/{name}/act", json=body).json()
        np.testing.assert_allclose(joint[name]["action"], alone["action"])


def test_a_session_remembers_as_a_client_would(clients):
    client = clients("memory")
    session = client.post("/sessions")
    assert session.status_code == 201
    key = {"session": session.json()["session"]}
    state = None
    for step in range(4):
        name, body = observations(client, seed=step)
        own = client.post(f"/agents/{name}/act", json={**body, "state": state}).json()
        kept = client.post(f"/agents/{name}/act", json={**body, **key}).json()
        assert kept == {"action": own["action"]}
        state = own["state"]
    assert any(abs(x) > 0 for x in np.ravel(next(iter(state.values()))))
    other = client.post("/sessions").json()
    assert other["session"] != key["session"]
    assert client.delete(f"/sessions/{key['session']}").status_code == 204
    gone = client.post(f"/agents/{name}/act", json={**body, **key})
    assert gone.status_code == 404 and "no such session" in gone.json()["error"]


def test_sessions_end_and_their_number_is_limited():
    now = 0.0
    sessions = Sessions(2, timeout=10.0, clock=lambda: now)
    first, second = sessions.open(), sessions.open()
    with pytest.raises(Refused, match="there are 2 sessions already") as refused:
        sessions.open()
    assert refused.value.status == 429
    now = 6.0
    sessions.states(first)["agent"] = 1  # used: it lives on
    now = 12.0
    assert len(sessions) == 1
    assert sessions.states(first) == {"agent": 1}
    with pytest.raises(Refused, match="ended 10 s after its last use"):
        sessions.states(second)
    sessions.open()


# ------------------------------------------------------------------ the shield
def test_a_constraint_on_the_own_action_is_kept_and_counted(bundles, tmp_path):
    safety = {"linear": [OWN], "centre": CENTRE}
    client = client_of(changed(bundles("plain"), tmp_path / "held", safety=safety))
    name, body = observations(client, 64)
    taken = np.array(client.post(f"/agents/{name}/act", json=body).json()["action"])
    assert (taken.sum(-1) <= 0.1).all()
    free = load_bundle(bundles("plain")).agents[name].act(body["observation"])[0]
    wanted = free.sum(-1) > 0.1
    assert wanted.any()
    assert f"marl_td_corrected_total {int(wanted.sum())}" in client.get("/metrics").text
    np.testing.assert_array_equal(taken.astype(np.float32)[~wanted], free[~wanted])


def test_a_joint_constraint_needs_everybody(bundles, tmp_path):
    safety = {"linear": [OWN, JOINT], "centre": CENTRE}
    client = client_of(changed(bundles("plain"), tmp_path / "together", safety=safety))
    name, body = observations(client, 5)
    alone = client.post(f"/agents/{name}/act", json=body)
    assert alone.status_code == 422
    assert (
        "holds for all agents together: ask for the actions of all of them" in alone.json()["error"]
    )
    some = client.post("/act", json={"agents": {name: body}})
    assert some.status_code == 422 and "missing" in some.json()["error"]
    names = list(client.get("/signature").json()["agents"])
    every = client.post("/act", json={"agents": dict.fromkeys(names, body)}).json()["agents"]
    actions = np.array([every[name]["action"] for name in names])
    assert (actions[..., 0].sum(0) <= 0.2).all() and (actions.sum(-1) <= 0.1).all()
    unequal = {name: observations(client, 1 + i)[1] for i, name in enumerate(names)}
    found = client.post("/act", json={"agents": unequal})
    assert found.status_code == 422 and "batches must be equal" in found.json()["error"]


# ------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "not JSON"),
        (b"[1]", 422, "must be an object such as"),
        (b'{"observation": [NaN]}', 400, "holds NaN; every number must be finite"),
        (b'{"observation": [1e400, 0, 0, 0, 0]}', 422, "not finite"),
        (b'{"observation": [1]}', 422, r"must have the shape \[5\]"),
        (b'{"obs": [1]}', 422, "has the unknown 'obs'; it may have observation, mask, state"),
        (b'{"mask": [true]}', 422, "lacks 'observation'"),
        (b'{"observation": [[1], [1, 2]]}', 422, "cannot be made an array"),
        (b'{"observation": "abcde"}', 422, "must hold numbers that fit float32"),
        (b'{"observation": [1,1,1,1,1], "session": 7}', 422, "the session must be the text"),
        (b'{"observation": [1,1,1,1,1], "session": "no"}', 404, "no such session"),
        (b'{"observation": [1,1,1,1,1], "mask": [[1], [1, 2]]}', 422, "mask"),
        (b'{"observation": [1], "observation": [1]}', 400, "the same name twice"),
        (b"[" * 100_000, 400, "nested too deeply"),
    ],
)
def test_a_bad_body_is_refused_with_a_sentence(clients, body, status, message):
    client = clients("plain")
    name = next(iter(client.get("/signature").json()["agents"]))
    found = client.post(f"/agents/{name}/act", content=body, headers=JSON)
    assert found.status_code == status
    assert re.search(message, found.json()["error"]), found.json()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/act", 405),
        ("POST", "/agents/nobody/act", 404),
        ("DELETE", "/sessions/none", 404),
        ("PUT", "/health", 405),
    ],
)
def test_what_is_not_there_is_said(clients, method, path, status):
    found = clients("plain").request(method, path, json={})
    assert found.status_code == status and found.json()["error"]


def test_only_json_is_taken(clients):
    found = clients("plain").post("/act", content=b"{}", headers={"content-type": "text/plain"})
    assert found.status_code == 415  # what a web page can send without asking


def test_large_bodies_and_batches_are_refused(bundles):
    client = client_of(bundles("plain"), max_body=2000, max_batch=3)
    name, body = observations(client, 4)
    many = client.post(f"/agents/{name}/act", json=body)
    assert many.status_code == 413 and "4 observations in one request; at most 3" in many.text
    long = client.post(f"/agents/{name}/act", content=b" " * 2001, headers=JSON)
    assert long.status_code == 413 and "larger than 2000 bytes" in long.json()["error"]

    def chunks():  # no length is said
        for _ in range(30):
            yield b" " * 100

    long = client.post(f"/agents/{name}/act", content=chunks(), headers=JSON)
    assert long.status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(bundles):
    client = client_of(bundles("plain"), read_timeout=0.05)
    slow = client.post("/act", content=[b'{"agents":', None], headers=JSON)
    assert slow.status_code == 408 and "did not come within 0.05 s" in slow.json()["error"]
    assert slow.headers["connection"] == "close"


def test_the_rate_of_a_client_is_limited(bundles):
    client = client_of(bundles("plain"), rate=0.001, burst=3)
    found = [client.get("/health") for _ in range(4)]
    assert [answer.status_code for answer in found] == [200, 200, 200, 429]
    assert int(found[-1].headers["retry-after"]) > 900


def test_a_bucket_fills_again():
    now = 0.0
    rates = Rates(2.0, 1, clock=lambda: now)
    assert rates.take("a") == 0.0
    assert rates.take("a") == pytest.approx(0.5)
    assert rates.take("b") == 0.0
    now = 0.5
    assert rates.take("a") == 0.0


def test_the_token_is_asked_for(bundles):
    client = client_of(bundles("plain"), token=TOKEN, local_only=False)
    assert client.get("/health").status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
        refused = client.get("/signature", headers=headers)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    good = client.get("/signature", headers={"authorization": f"Bearer {TOKEN}"})
    assert good.status_code == 200


def test_another_name_than_localhost_is_refused_without_a_token(clients):
    found = clients("plain").get("/health", headers={"host": "evil.example"})
    assert found.status_code == 421 and "reached as localhost only" in found.json()["error"]


def test_a_server_that_others_reach_needs_a_token():
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.3.3.3")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "example.org", "10.0.0.1", "")))
    with pytest.raises(ValueError, match="a token is needed: give --token, or set MARL_TD_TOKEN"):
        settings_for("0.0.0.0", None)
    with pytest.raises(ValueError, match="at least 16 characters"):
        settings_for("0.0.0.0", "short")
    assert not settings_for("0.0.0.0", TOKEN).local_only
    assert settings_for("127.0.0.1", None).local_only
    with pytest.raises(ValueError, match="max_batch must be at least 1"):
        settings_for("127.0.0.1", None, max_batch=0)


# ------------------------------------------------------------------ the description
@pytest.mark.parametrize("kind", ["plain", "memory", SEVERAL])
def test_requests_that_fit_the_description_are_answered_as_it_says(clients, kind):
    client = clients(kind)
    described = Described(client.get("/openapi.json").json())

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def holds(data):
        path = data.draw(st.sampled_from(sorted(described.bodies)))
        found = client.post(path, json=data.draw(described.good(path)))
        assert found.status_code == 200, found.text
        assert str(found.status_code) in described.description["paths"][path]["post"]["responses"]
        agents = found.json()["agents"].values() if path == "/act" else [found.json()]
        for answer in agents:
            assert np.isfinite(np.array(answer["action"], dtype=float)).all()

    holds()


@pytest.mark.parametrize("kind", ["plain", "memory", SEVERAL])
def test_requests_with_one_thing_wrong_get_4xx_and_nothing_breaks(clients, kind):
    client = clients(kind)
    described = Described(client.get("/openapi.json").json())

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def holds(data):
        path = data.draw(st.sampled_from(sorted(described.bodies)))
        body = data.draw(described.bad(path))
        found = client.post(path, content=body, headers=JSON)
        assert 400 <= found.status_code < 500, (body, found.text)
        assert found.json()["error"]

    holds()
    assert client.get("/health").status_code == 200
    assert 'status="5' not in client.get("/metrics").text


def test_the_page_of_the_description_loads_nothing(clients):
    page = clients("plain").get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "/agents/agents_0/act" in page.text
    assert "http://" not in page.text and "https://" not in page.text and "<script" not in page.text


def test_metrics_are_prometheus_text(clients):
    client = clients("plain")
    client.get("/health")
    lines = client.get("/metrics").text.splitlines()
    assert any(
        line.startswith('marl_td_requests_total{route="/health",status="200"}') for line in lines
    )
    for line in lines:
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2
    buckets = [line for line in lines if 'seconds_bucket{route="/health"' in line]
    counts = [int(line.rsplit(" ", 1)[1]) for line in buckets]
    assert counts == sorted(counts) and 'le="+Inf"' in buckets[-1]


def test_no_torch_is_imported(bundles):
    code = (
        "import sys; from marl_td.deploy import load_bundle; from marl_td.deploy.server import PolicyServer;"
        f"PolicyServer(load_bundle({str(bundles('plain'))!r}, verify=True));"
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('torch', 'torchrl', 'tensordict', 'benchmarl', 'scipy', 'hydra')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
