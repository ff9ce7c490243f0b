"""Damages checkpoints in every way that a disk or a person can, and looks at what is loaded then."""

import os
import random
import shutil
from pathlib import Path

from faults import flip
from kills import digest
from survival import _flat

from marl_td.training.checkpoints import Checkpoints


def _flip_in_place(path, chance):
    """As a disk does it: every hard link sees it."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    with path.open("r+b") as file:
        file.write(bytes(content))


def _copy(path, content):
    path.unlink()
    path.write_bytes(content)


WAYS = {
    "bit flipped": lambda path, chance: flip(path, chance.random()),
    "bit flipped on the disk": _flip_in_place,
    "cut": lambda path, chance: _copy(
        path, path.read_bytes()[: chance.randrange(path.stat().st_size)]
    ),
    "zeros": lambda path, chance: _copy(path, bytes(path.stat().st_size)),
    "gone": lambda path, chance: path.unlink(),
    "longer": lambda path, chance: _copy(path, path.read_bytes() + os.urandom(8)),
    "of another checkpoint": None,
}


class Patient:
    """A run's checkpoints, each with a checksum of all that it holds.

    Args:
        folder: the run's.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.healthy = {
            path.name: _content(Checkpoints(self.folder / "checkpoints", None), path)
            for path in Checkpoints(self.folder / "checkpoints", None).files()
        }

    def load(self, folder):
        """Frames of the newest intact checkpoint, and whether it holds what it was saved with."""
        checkpoints = Checkpoints(Path(folder) / "checkpoints", None)
        newest, _ = checkpoints.newest_intact()
        if newest is None:
            return None
        right = _content(checkpoints, newest.folder) == self.healthy[newest.folder.name]
        return newest.summary.frames, right

    def damage(self, seed, place):
        """Damage a file of the newest checkpoint in a copy, in a random way; load what is left."""
        chance = random.Random(seed)
        way = chance.choice(sorted(WAYS))
        _copy_links(self.folder, place)
        *_, before, newest = Checkpoints(place / "checkpoints", None).files()
        file = chance.choice(sorted(newest.iterdir()))
        twin = before / file.name
        if WAYS[way] is not None:
            WAYS[way](file, chance)
        elif twin.exists() and twin.read_bytes() != file.read_bytes():
            _copy(file, twin.read_bytes())
        else:
            way = "gone"
            file.unlink()
        found = self.load(place)
        shutil.rmtree(place)
        if found is None:
            outcome = "none is intact"
        elif not found[1]:
            outcome = "wrong"
        else:
            outcome = "an older one" if found[0] < 90 else "accepted"
        return {"way": way, "file": file.name, "outcome": outcome}


def _copy_links(source, target):
    """A copy in which files that were hard links of each other are so again."""
    seen = {}
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.stat().st_ino in seen:
            os.link(seen[path.stat().st_ino], copy)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            seen[path.stat().st_ino] = copy


def _content(checkpoints, path):
    """Checksums of a checkpoint's state and rows, without its checks."""
    from marl_td.training.checkpoint_folder import Checkpoint

    checkpoint = Checkpoint(path)
    found = dict(_flat(checkpoint.state(), "state"))
    for name in checkpoint.files:
        if name.startswith("replay"):
            found.update({f"{name}.{k}": v for k, v in checkpoint.tensors(name).items()})
    return digest(found)
