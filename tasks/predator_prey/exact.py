"""How fast predators can catch the prey: the game solved backwards over all joint positions.

A set of states is a bool array over (prey, predator 1, ..., predator m), one axis of open cells each, with
the last axis packed into bits. With ``S`` the states captured, or won within k - 1 steps, those won within k:

* prey that moves by a rule: some joint move P' of the predators has ``(P', rule(P, x))`` in ``S``;
* prey that knows the predators' move (the worst case): some P' has ``(P', y)`` in ``S`` for every move y;
* predators that know the prey's move: for every y there is some such P'.

"Some joint move" is one widening of the set per predator axis, since every predator moves by itself; "every
move of the prey" is an intersection of rows. So a round costs some passes over the packed sets (12 MB for 3
predators on 10 x 10 cells), and no joint move is ever listed. A prey that walks at random is solved by value
iteration over the same axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_td.tasks.predator_prey.board import Board

Bits = NDArray[np.uint8]
"""``[n, ..., n, ceil(n / 8)]``: a set of states."""

MOST_STATES = 150_000_000
MOST_STATES_OF_VALUES = 6_000_000
N_ROUNDS = 2000


class Solution(NamedTuple):
    """Steps until the capture under best play of the predators, over all starts on different cells."""

    mean: float
    """Mean over the starts from which it can be forced."""
    most: int
    """From the worst of them; against a prey that walks at random, the largest expected number, rounded."""
    share: float
    """Share of the starts from which it can be forced."""


def n_states(board: Board, n_agents: int) -> int:
    """Number of joint positions of ``n_agents`` predators and the prey."""
    return int(board.n_cells ** (n_agents + 1))


def solve(board: Board, n_agents: int, prey: str) -> Solution:
    """Best play of ``n_agents`` predators against a kind of prey.

    Args:
        board: see :func:`~marl_td.tasks.predator_prey.board.build`.
        n_agents: number of (living) predators.
        prey: ``"nearest"`` or ``"total"`` (flees by that rule), ``"random"``, ``"informed"`` (knows the
            predators' move), or ``"visible"`` (the predators know its move; it plays its best).

    Raises:
        ValueError: for another prey, or if there are too many states.
    """
    most = MOST_STATES_OF_VALUES if prey == "random" else MOST_STATES
    found = n_states(board, n_agents)
    if found > most:
        raise ValueError(f"{found} joint positions are too many to solve; at most {most}.")
    if prey == "random":
        return _random(board, n_agents)
    sets = _Sets(board, n_agents)
    if prey in ("nearest", "total"):
        flees = sets.rule(prey)
        return sets.rounds(lambda won: sets.by_rule(sets.some(won), flees))
    if prey == "informed":
        return sets.rounds(lambda won: sets.some(sets.every(won)))
    if prey == "visible":
        return sets.rounds(lambda won: sets.every(sets.some(won)))
    raise ValueError(f"prey must be nearest, total, random, informed or visible; got '{prey}'.")


class _Sets:
    """Operations on sets of states of one board."""

    def __init__(self, board: Board, n_agents: int) -> None:
        self.n, self.m = board.n_cells, n_agents
        self.after = board.after.cpu().numpy()
        self.square = board.square.cpu().numpy()
        self.next = board.next.cpu().numpy()
        near = board.near.cpu().numpy()
        caught = np.ones((self.n,) * (self.m + 1), dtype=bool)
        for axis in range(1, self.m + 1):
            caught &= _along(near.T, axis, self.m)
        self.caught = np.packbits(caught, axis=-1)
        self.starts = np.packbits(_different(self.n, self.m), axis=-1)
        self.wider = self._wider()

    def _wider(self) -> NDArray[np.uint8]:
        """For each byte of a packed row and each of its values: the row that these cells widen to."""
        reach = np.zeros(
            (self.n, self.n), dtype=bool
        )  # [from, to]: a set at `to` is reached from `from`
        for move in range(self.next.shape[1]):
            reach[np.arange(self.n), self.next[:, move]] = True
        n_bytes = self.caught.shape[-1]
        cells = np.zeros((n_bytes * 8, self.n), dtype=bool)
        cells[: self.n] = reach.T  # who reaches this cell
        packed = np.packbits(cells, axis=-1).reshape(n_bytes, 8, n_bytes)
        table = np.zeros((n_bytes, 256, n_bytes), dtype=np.uint8)
        for bit in range(8):
            holds = (np.arange(256) >> (7 - bit)) & 1 == 1
            table[:, holds] |= packed[:, bit, None]
        return table

    def some(self, won: Bits) -> Bits:
        """States from which some joint move of the predators leads into the set, the prey staying."""
        for axis in range(1, self.m):
            wide = np.take(won, self.next[:, 0], axis)
            for move in range(1, self.next.shape[1]):
                wide |= np.take(won, self.next[:, move], axis)
            won = wide
        out = self.wider[0][won[..., 0]]
        for byte in range(1, won.shape[-1]):
            out |= self.wider[byte][won[..., byte]]
        return out

    def every(self, won: Bits) -> Bits:
        """States of the set into which every move of the prey leads, the predators staying."""
        out = won[self.after[:, 0]]
        for action in range(1, self.after.shape[1]):
            out &= won[self.after[:, action]]
        return out

    def by_rule(self, won: Bits, flees: list[Bits]) -> Bits:
        """States that the prey's rule leads into the set."""
        out = np.zeros_like(won)
        for action, chosen in enumerate(flees):
            out |= won[self.after[:, action]] & chosen
        return out

    def rule(self, prey: str) -> list[Bits]:
        """For each action of the prey the states in which the rule takes it: the first that leads far."""
        far: NDArray[Any] = _along(self.square, 1, self.m)
        for axis in range(2, self.m + 1):
            other = _along(self.square, axis, self.m)
            far = np.minimum(far, other) if prey == "nearest" else far + other
        far = np.broadcast_to(far, (self.n,) * (self.m + 1)).astype(np.int16)
        best = np.full_like(far, -1)
        chosen = np.zeros(far.shape, dtype=np.uint8)
        for action in range(self.after.shape[1]):
            found = far[self.after[:, action]]
            better = found > best
            best[better], chosen[better] = found[better], action
        return [np.packbits(chosen == action, axis=-1) for action in range(self.after.shape[1])]

    def rounds(self, back: Callable[[Bits], Bits]) -> Solution:
        """Go backwards until nothing is won any more."""
        won, done = self.caught, np.zeros_like(self.caught)
        total, counted, most = 0, 0, 0
        for k in range(1, N_ROUNDS):
            found = back(won)
            fresh = _count(found & ~done & self.starts)
            if not (found & ~done).any():
                break
            total, counted = total + k * fresh, counted + fresh
            most = k if fresh else most
            done |= found
            won = won | found
        mean = total / counted if counted else float("inf")
        return Solution(mean, most, counted / max(_count(self.starts), 1))


def _along(table: NDArray[Any], axis: int, n_agents: int) -> NDArray[Any]:
    """``table [prey, predator]`` as an array over all axes, the predator's being ``axis``."""
    shape = [table.shape[0]] + [1] * n_agents
    shape[axis] = table.shape[1]
    return table.reshape(shape)


def _different(n: int, n_agents: int) -> NDArray[np.bool_]:
    """States in which all are on different cells."""
    out = np.ones((n,) * (n_agents + 1), dtype=bool)
    other = ~np.eye(n, dtype=bool)
    for first in range(n_agents + 1):
        for second in range(first + 1, n_agents + 1):
            shape = [1] * (n_agents + 1)
            shape[first] = shape[second] = n
            out &= other.reshape(shape)
    return out


def _count(bits: Bits) -> int:
    """Number of states of a set."""
    table = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)
    return int((np.bincount(bits.ravel(), minlength=256) * table).sum())


def _random(board: Board, n_agents: int) -> Solution:
    """Expected steps against a prey that takes each of its actions equally often, by value iteration."""
    n = board.n_cells
    after, ahead = board.after.cpu().numpy(), board.next.cpu().numpy()
    near = board.near.cpu().numpy()
    caught = np.ones((n,) * (n_agents + 1), dtype=bool)
    for axis in range(1, n_agents + 1):
        caught &= _along(near.T, axis, n_agents)
    value = np.zeros(caught.shape)
    for _ in range(N_ROUNDS):
        left = np.where(caught, 0.0, value)
        mean = sum(left[after[:, action]] for action in range(after.shape[1])) / after.shape[1]
        for axis in range(1, n_agents + 1):
            moves = range(ahead.shape[1])
            mean = np.minimum.reduce([np.take(mean, ahead[:, move], axis) for move in moves])
        step = float(np.abs(1.0 + mean - value).max())
        value = 1.0 + mean
        if step < 1e-7:
            break
    starts = value[_different(n, n_agents)]
    return Solution(float(starts.mean()), round(float(starts.max())), 1.0)
