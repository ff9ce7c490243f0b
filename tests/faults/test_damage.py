"""Damaged checkpoints: never a wrong load. What is not intact is named, and an older one is used."""

import pytest
from damage import Patient
from survival import FEW, experiment_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:The default behavior of TransformedEnv:FutureWarning"
)


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "run"
    experiment_of(FEW["maddpg by priority on disk"], folder).run()
    return Patient(folder)


def test_no_damage_leads_to_a_wrong_load(patient, tmp_path):
    for seed in range(30):
        found = patient.damage(seed, tmp_path / str(seed))
        assert found["outcome"] in ("an older one", "none is intact"), found


@pytest.mark.slow
def test_no_damage_of_300_leads_to_a_wrong_load(patient, tmp_path):
    ways = set()
    for seed in range(300):
        found = patient.damage(seed, tmp_path / str(seed))
        ways.add(found["way"])
        assert found["outcome"] in ("an older one", "none is intact"), found
    assert len(ways) == 7


def test_what_is_intact_is_loaded(patient, tmp_path):
    assert patient.load(patient.folder) == (90, True)
