"""Acting with a bundle: numpy and onnxruntime, no torch.

Example::

    from marl_td.deploy import load

    policy = load("bundle", agent="site_0")
    state = None
    while True:
        action, state = policy.act(observation, state, mask)
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marl_td.deploy.format import (
    ACTORS,
    GOLDEN,
    SIGNATURE,
    BundleError,
    BundleFiles,
    open_bundle,
)
from marl_td.deploy.golden import read_arrays, replay
from marl_td.deploy.safety import AgentSafety, BundleSafety, read_safety
from marl_td.deploy.sampling import draw_action
from marl_td.deploy.session import actor_session, check_session
from marl_td.deploy.signature import SAMPLED, AgentSignature, Array
from marl_td.deploy.together import act_together
from marl_td.deploy.validate import InputError, actor_inputs
from marl_td.deploy.weights import require_finite_weights

State = dict[str, Array]


class Policy:
    """One agent's decentralised policy. :meth:`act` may be called from several threads.

    Args:
        agent: the agent's name.
        signature: what its actor reads and writes.
        session: the actor, an ``onnxruntime.InferenceSession``.
        seed: of drawn actions; only a policy exported as sampled draws any.
        check_bounds: refuse observations outside of the signature's bounds.
        safety: what the shield of the bundle keeps of this agent's action.
        alone: whether the agent may act by itself; false where a constraint is on the joint action.
    """

    def __init__(
        self,
        agent: str,
        signature: AgentSignature,
        session: Any,
        *,
        seed: int | None = None,
        check_bounds: bool = True,
        safety: AgentSafety | None = None,
        alone: bool = True,
    ) -> None:
        self.agent = agent
        self.safety = AgentSafety() if safety is None else safety
        self.alone = alone
        self.corrected = 0
        self.signature = signature
        self.check_bounds = check_bounds
        self.session = session
        self._outputs = list(signature.outputs)
        self._lock = threading.Lock()
        self.seed(seed)

    def seed(self, seed: int | None) -> None:
        """Start the stream of drawn actions anew."""
        self._rng = np.random.default_rng(seed)

    def initial_state(self, batch: int | None = None) -> State | None:
        """The state before the first step, of one observation or of a batch; None without memory."""
        shape = () if batch is None else (batch,)
        entries = self.signature.state
        full = {
            entry.name: np.broadcast_to(entry.initial, (*shape, *entry.shape)).copy()
            for entry in entries
        }
        return full or None

    def act(
        self, obs: Any, state: Mapping[str, Any] | None = None, mask: Any = None
    ) -> tuple[Array, State | None]:
        """The agent's action, and its state for the next step.

        Args:
            obs: the agent's own observation, of the signature's shape, or a batch ``[B, ...]`` of them; a
                dict by name where it has several entries.
            state: what the last call returned; None in the first step of an episode, and always for a
                policy without memory.
            mask: bool ``[n]`` (or ``[B, n]``), true where an action is available; None for an agent that
                has no mask, or if ``obs`` is a dict that holds it too.

        Returns:
            A discrete action as an int64 number (``[B]`` for a batch), a continuous one as float32
            ``[d]`` (``[B, d]``); and the next state, None for a policy without memory.

        Raises:
            InputError: if an input has a wrong type, shape or value; the message says which. And if the
                bundle's shield is on the joint action, which one agent cannot keep alone.
        """
        if not self.alone:
            raise InputError(
                f"agent '{self.agent}': the shield of this bundle holds for all agents together; ask for all "
                "actions at once (Bundle.act, or the server's /act)."
            )
        return self.propose(obs, state, mask)

    def propose(
        self, obs: Any, state: Mapping[str, Any] | None = None, mask: Any = None
    ) -> tuple[Array, State | None]:
        """As :meth:`act`, before a constraint on the joint action, which the caller must then keep."""
        outputs, batched = self._run(obs, state, mask)
        signature = self.signature
        if signature.mode == SAMPLED:
            with self._lock:
                outputs["action"] = draw_action(signature, outputs, self._rng)
        after = {entry.name: outputs[entry.next] for entry in signature.state}
        if not batched:
            after = {name: value[0] for name, value in after.items()}
        action = self.safety.correct(outputs["action"])
        self.count_changes(outputs["action"], action)
        return (action if batched else action[0]), after or None

    def count_changes(self, wanted: Array, taken: Array) -> None:
        """Count the rows of ``taken`` ``[B, ...]`` that differ from what the network wanted."""
        if taken is not wanted:
            changed = (taken != wanted).reshape(len(taken), -1).any(-1)
            with self._lock:
                self.corrected += int(changed.sum())

    def outputs(
        self, obs: Any, state: Mapping[str, Any] | None = None, mask: Any = None
    ) -> dict[str, Array]:
        """All that the actor writes, by name, with a batch dimension; arguments as for :meth:`act`.

        ``action`` is the best action also where actions are drawn; ``scores`` ``[B, n]`` are the logits or
        values of discrete actions, the lowest number for one that is not available; ``loc`` and
        ``scale`` ``[B, d]`` are what continuous actions are drawn from.
        """
        return self._run(obs, state, mask)[0]

    def _run(self, obs: Any, state: Any, mask: Any) -> tuple[dict[str, Array], bool]:
        try:
            inputs, batched = actor_inputs(self.signature, obs, state, mask, self.check_bounds)
        except InputError as error:
            raise InputError(f"agent '{self.agent}': {error}") from None
        if self.signature.mask is not None:
            name = self.signature.mask.name
            inputs[name] = self.safety.mask(inputs[name])
        found = self.session.run(self._outputs, inputs)
        return dict(zip(self._outputs, found, strict=True)), batched


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Args:
        agents: the policy of each agent.
        signature: ``signature.json``.
        manifest: ``manifest.json``.
        files: the checked files.
        safety: the shield.
    """

    agents: dict[str, Policy]
    signature: dict[str, Any]
    manifest: dict[str, Any]
    files: BundleFiles
    safety: BundleSafety

    def act(
        self,
        obs: Mapping[str, Any],
        states: Mapping[str, Any] | None = None,
        masks: Mapping[str, Any] | None = None,
    ) -> tuple[dict[str, Array], dict[str, State | None]]:
        """The actions of several agents at once, and their next states, by name.

        Args:
            obs: each agent's observation, or batches ``[B, ...]`` of them for all.
            states: what the last call returned; None in the first step.
            masks: of the agents that have one.

        Raises:
            InputError: as :meth:`Policy.act`; for an unknown agent; and if an agent is missing that a
                constraint on the joint action needs.
        """
        return act_together(self.agents, self.safety, obs, states or {}, masks or {})

    @property
    def corrected(self) -> int:
        """How many actions the shield has changed so far."""
        return sum(policy.corrected for policy in self.agents.values())

    def verify(self) -> float:
        """Replay the stored inputs, and compare with what the training policy made of them, and the weights.

        Returns:
            The largest difference.

        Raises:
            BundleError: if one is above 1e-5, or the weights hold numbers that are not finite.
        """
        require_finite_weights(self.files)
        golden = read_arrays(self.files.read(GOLDEN), self.files.folder / GOLDEN)
        return max(
            replay(name, policy.signature, policy.session, golden)
            for name, policy in self.agents.items()
        )


def load_bundle(
    path: str | Path,
    *,
    verify: bool = False,
    seed: int | None = None,
    threads: int = 1,
    check_bounds: bool = True,
) -> Bundle:
    """Every agent's policy of a bundle.

    Args:
        path: what ``marl-td export --out`` wrote.
        verify: also replay the stored inputs (:meth:`Bundle.verify`).
        seed: of drawn actions; agents have streams of their own.
        threads: onnxruntime's threads within one call; one is fastest for small networks.
        check_bounds: refuse observations outside of the signature's bounds.

    Raises:
        BundleError: if a file is missing, changed, a link, too large, or does not fit the signature.
        ImportError: without onnxruntime.
    """
    files = open_bundle(Path(path))
    signature = files.read_json(SIGNATURE)
    described = signature.get("agents")
    if not isinstance(described, dict) or not described:
        raise BundleError(f"'{files.folder / SIGNATURE}' names no agent.")
    parsed = {name: AgentSignature.from_dict(name, data) for name, data in described.items()}
    safety = read_safety(signature.get("safety"), parsed)
    sessions: dict[str, Any] = {}
    agents = {}
    for number, (name, agent) in enumerate(parsed.items()):
        if agent.actor not in sessions:
            sessions[agent.actor] = actor_session(files, f"{ACTORS}/{agent.actor}.onnx", threads)
        check_session(name, agent, sessions[agent.actor])
        agents[name] = Policy(
            name,
            agent,
            sessions[agent.actor],
            seed=None if seed is None else seed + number,
            check_bounds=check_bounds,
            safety=safety.agents.get(name),
            alone=safety.joint is None,
        )
    bundle = Bundle(agents, signature, files.manifest, files, safety)
    if verify:
        bundle.verify()
    return bundle


def load(path: str | Path, agent: str | None = None, **options: Any) -> Policy:
    """The policy of one agent of a bundle.

    Args:
        path: what ``marl-td export --out`` wrote.
        agent: its name; None where there is only one, or all have the same network.
        options: as for :func:`load_bundle`.

    Raises:
        BundleError: as :func:`load_bundle`; and if there is no such agent, or it must be named.
    """
    agents = load_bundle(path, **options).agents
    names = ", ".join(agents)
    if agent is not None:
        if agent not in agents:
            raise BundleError(f"the bundle '{path}' has no agent '{agent}'; it has {names}.")
        return agents[agent]
    if len({policy.signature.actor for policy in agents.values()}) > 1:
        raise BundleError(
            f"the agents of the bundle '{path}' have different networks: name one of {names}, or take them "
            "all from load_bundle()."
        )
    return next(iter(agents.values()))
