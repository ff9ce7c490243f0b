"""Bundles that were changed, cut, linked elsewhere or made by someone with bad intentions are refused."""

import hashlib
import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import actor_bytes, agent_signature, write_bundle, write_manifest

from marl_td.deploy import BundleError, load_bundle
from marl_td.deploy import format as layout
from marl_td.deploy.signature import AgentSignature, Entry


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path / "b")


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def relist(folder, **files):
    """The manifest with changed entries."""
    manifest = manifest_of(folder)
    listed = {name.replace("__", "/"): entry for name, entry in files.items()}
    manifest["files"] = {**manifest["files"], **listed}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def replace_file(folder, name, data):
    """A file with other content that the manifest agrees with."""
    (folder / name).write_bytes(data)
    manifest = manifest_of(folder)
    manifest["files"][name] = layout.describe_file(data)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_whole_bundle_is_read(folder):
    assert list(load_bundle(folder).agents) == ["a"]


def test_hash_and_size_are_of_the_content():
    assert layout.describe_file(b"abc") == {"size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}


@pytest.mark.parametrize("name", ["signature.json", "actors/agents.onnx", "golden.npz"])
@pytest.mark.parametrize("how", ["flip", "cut", "append"])
def test_a_changed_file_is_refused(folder, name, how):
    data = bytearray((folder / name).read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    data = data[:-1] if how == "cut" else data + b" " * (how == "append")
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}' is not the file that manifest.json lists"):
        load_bundle(folder)


def test_a_missing_file_is_named(folder):
    (folder / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"golden.npz' is missing, though manifest.json lists it"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["golden.npz", "actors"])
def test_links_are_refused(folder, tmp_path, name):
    shutil.move(folder / name, tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=f"{name}' is a link; a bundle holds plain files only"):
        load_bundle(folder)


def test_a_linked_manifest_is_refused(folder, tmp_path):
    shutil.move(folder / "manifest.json", tmp_path / "elsewhere")
    (folder / "manifest.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"is no bundle: it has no manifest.json"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../b.onnx",
        "/etc/passwd",
        "actors/../../x",
        "a/b/c",
        "",
        "..",
        "a\\b",
        "C:x",
        ".hidden",
        "a/",
    ],
)
def test_names_outside_of_the_bundle_are_refused(folder, name):
    files = {**manifest_of(folder)["files"], name: {"size": 1, "sha256": "0" * 64}}
    write_manifest(folder, files)
    with pytest.raises(BundleError, match="a file of a bundle is NAME or FOLDER/NAME"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"size": 2**40, "sha256": "0" * 64}, "at most 1024 MiB are read"),
        ({"size": -1, "sha256": "0" * 64}, "has -1 bytes"),
        ({"size": "3", "sha256": "0" * 64}, "must give size and sha256"),
        ({"size": True, "sha256": "0" * 64}, "must give size and sha256"),
        ({"size": 3}, "must give size and sha256"),
        ([], "must give size and sha256"),
    ],
)
def test_entries_of_the_manifest_are_checked(folder, entry, message):
    relist(folder, x=entry)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_too_much_altogether_is_refused(folder, monkeypatch):
    monkeypatch.setattr(layout, "MAX_TOTAL", 100)
    with pytest.raises(BundleError, match="have more than"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2; this version reads .* format 1. Export the run again"),
        ({"format": None}, "format None"),
        ({"kind": "zip"}, "kind 'zip'"),
        ({"files": {}}, "must list 1 to 4096 files"),
        ({"files": []}, "must list 1 to 4096 files"),
    ],
)
def test_other_formats_are_refused(folder, changes, message):
    write_manifest(folder, manifest_of(folder)["files"])
    write_manifest(folder, **{"files": manifest_of(folder)["files"], **changes})
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "manifest.json' is not JSON"),
        (b"[]", "must hold a JSON object"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b" " * (4 * 2**20 + 1), "is larger than 4 MiB"),
    ],
    ids=["cut", "list", "deep", "bytes", "large"],
)
def test_a_damaged_manifest_is_refused(folder, text, message):
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_another_folder_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"is no bundle.*the folder that `marl-td export --out`"):
        load_bundle(tmp_path)


def test_an_actor_that_is_no_onnx_file_is_refused(folder):
    replace_file(folder, "actors/agents.onnx", b"not a model")
    with pytest.raises(BundleError, match=r"onnxruntime cannot load '.*agents.onnx'"):
        load_bundle(folder)


def test_an_actor_that_reads_other_files_is_refused(folder):
    import onnx
    from onnx.external_data_helper import set_external_data

    model = onnx.load_from_string(actor_bytes())
    tensor = model.graph.initializer[0]
    tensor.raw_data = b"\0" * 4
    del tensor.float_data[:]
    set_external_data(tensor, location="../secret.bin")
    tensor.ClearField("raw_data")
    replace_file(folder, "actors/agents.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match="takes numbers from another file"):
        load_bundle(folder)


def test_no_pickle_is_read(folder):
    import io

    import numpy as np

    file = io.BytesIO()
    np.savez(file, x=np.array([object()], dtype=object))
    replace_file(folder, "golden.npz", file.getvalue())
    with pytest.raises(BundleError, match=r"golden.npz' holds no plain arrays"):
        load_bundle(folder, verify=True)
    replace_file(folder, "golden.npz", b"\x80\x04.")
    with pytest.raises(BundleError, match=r"golden.npz' holds no plain arrays"):
        load_bundle(folder, verify=True)


def test_an_archive_that_unpacks_to_too_much_is_refused(folder, monkeypatch):
    from marl_td.deploy import golden

    monkeypatch.setattr(golden, "MAX_FILE", -1)
    with pytest.raises(BundleError, match="unpacks to more than"):
        load_bundle(folder, verify=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"observation": (Entry("observation", "float32", (4,)),)},
            "does not fit the signature of agent 'a'",
        ),
        ({"mask": None}, "does not fit the signature"),
        ({"outputs": ("action", "scores", "next_steps", "loc")}, r"does not write \['loc'\]"),
        ({"outputs": ("action",)}, r"must write \['action', 'next_steps'\]"),
        ({"mode": "sampled"}, "does not go with the distribution ''"),
        ({"mode": "maybe"}, "must be deterministic or sampled"),
        ({"kind": "both"}, "must be discrete with n > 0, or continuous"),
        ({"n_actions": 0}, "must be discrete with n > 0"),
        ({"distribution": "cauchy"}, "does not go with the distribution 'cauchy'"),
        ({"distribution": "normal"}, "discrete actions are not drawn from 'normal'"),
        (
            {"kind": "continuous", "n_actions": 0, "distribution": "tanh_normal"},
            "squashed into their bounds need finite bounds",
        ),
        ({"actor": "absent"}, "has no 'actors/absent.onnx'"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused(tmp_path, changes, message):
    folder = write_bundle(tmp_path / "b", {"a": agent_signature(**changes)})
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "must be an object"),
        ({"name": 3}, "needs a name; got 3"),
        ({"dtype": "object"}, "'x' has the type 'object'; known are"),
        ({"shape": [0]}, r"'x' has the shape \[0\]; sizes must be at least 1"),
        ({"shape": [2**20, 2**20]}, "sizes must be"),
        ({"shape": 3}, "'x' has the shape 3"),
        ({"low": [1.0, 2.0]}, r"the bounds of 'x' do not fit its shape \[3\]"),
        ({"low": "low"}, "the bounds of 'x' do not fit"),
        ({"low": 10**400}, "the bounds of 'x' do not fit"),
        ({"init": "zero"}, "'x' must start from a number"),
        ({"init": float("inf")}, "'x' must start from a number up to 1e"),
        ({"init": float("nan")}, "'x' must start from a number"),
    ],
)
def test_entries_of_the_signature_are_checked(entry, message):
    plain = {"name": "x", "dtype": "float32", "shape": [3]}
    with pytest.raises(BundleError, match=message):
        Entry.from_dict({**plain, **entry} if isinstance(entry, dict) else entry)


def test_an_index_that_is_none_is_refused():
    for index in ("first", float("inf"), None):
        with pytest.raises(BundleError, match="the signature of agent 'a' lacks an entry or has"):
            AgentSignature.from_dict("a", {**agent_signature().as_dict(), "index": index})


@pytest.mark.parametrize("missing", ["group", "observation", "state", "action", "mode", "outputs"])
def test_a_signature_that_lacks_something_is_refused(missing):
    data = agent_signature().as_dict()
    del data[missing]
    with pytest.raises(BundleError, match=f"the signature of agent 'a' lacks .*{missing}"):
        AgentSignature.from_dict("a", data)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(junk=JUNK, seed=st.integers(0, 10**6))
@settings(max_examples=300)
def test_any_signature_is_taken_or_refused(junk, seed):
    """A part of a good one is replaced by anything: there is no other error than ours."""
    data = json.loads(json.dumps(agent_signature().as_dict()))
    places = [(data, key) for key in data]
    for name in ("observation", "state"):
        places += [(data[name], 0), *((data[name][0], key) for key in data[name][0])]
    for name in ("mask", "action"):
        places += [(data[name], key) for key in data[name]]
    place, key = places[seed % len(places)]
    place[key] = junk
    try:
        AgentSignature.from_dict("a", data)
    except BundleError as error:
        assert "the signature of agent 'a'" in str(error)


def test_a_bundle_without_agents_is_refused(folder):
    replace_file(folder, "signature.json", b'{"agents": {}}')
    with pytest.raises(BundleError, match=r"signature.json' names no agent"):
        load_bundle(folder)


def test_bounds_go_through_json():
    import numpy as np

    low = np.array([-1.0, -np.inf, 0.0])
    entry = Entry("x", "float32", (3,), low, np.full(3, 2.0), ({"name": "speed", "unit": "m/s"},))
    data = json.loads(json.dumps(entry.as_dict(), allow_nan=False))
    assert data["low"] == [-1.0, None, 0.0] and data["high"] == 2.0
    back = Entry.from_dict(data)
    np.testing.assert_array_equal(back.low, low)
    np.testing.assert_array_equal(back.high, [2.0, 2.0, 2.0])
    assert back.components == entry.components
