"""JaxMARL's side of `stepping.py`, run by the Python that has JaxMARL: one request, one answer a line.

It imports nothing of this package. A request is `{"n_envs": 10, "seconds": 0.5}`, an answer
`{"rate": ...}` in environment steps per second. The loop is one jitted `lax.scan` over 25 steps:
JaxMARL's own `step` with its reset in it, actions drawn for the whole scan in one call, and the
observations, rewards and ends of every step kept, as ours are.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

try:
    import jax
    import jaxmarl
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run this by JaxMARL's Python (benchmarks/stepping.py --install-peers).")

STEPS = 25


def make_loop(env: Any, n_envs: int) -> Any:
    """The jitted scan, and the state it starts with."""

    def one(carry: Any, action: Any) -> Any:
        key, state = carry
        key, step_key = jax.random.split(key)
        actions = {name: action[:, i] for i, name in enumerate(env.agents)}
        keys = jax.random.split(step_key, n_envs)
        seen, state, reward, done, _ = jax.vmap(env.step)(keys, state, actions)
        return (key, state), (seen, reward, done["__all__"])

    @jax.jit
    def scan(carry: Any) -> Any:
        key, state = carry
        key, action_key = jax.random.split(key)
        actions = jax.random.randint(action_key, (STEPS, n_envs, env.num_agents), 0, 5)
        return jax.lax.scan(one, (key, state), actions)

    key = jax.random.PRNGKey(0)
    _, state = jax.vmap(env.reset)(jax.random.split(key, n_envs))
    return scan, (key, state)


def main() -> None:
    env = jaxmarl.make("MPE_simple_spread_v3")
    loops: dict[int, list[Any]] = {}
    print(json.dumps({"device": jax.devices()[0].platform, "jax": jax.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        n_envs = request["n_envs"]
        if n_envs not in loops:
            loops[n_envs] = list(make_loop(env, n_envs))
            scan, carry = loops[n_envs]
            loops[n_envs][1] = jax.block_until_ready(scan(carry))[0]
        scan, carry = loops[n_envs]
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < request["seconds"]:
            carry, _ = jax.block_until_ready(scan(carry))
            steps += STEPS
        rate = steps * n_envs / (time.perf_counter() - start)
        loops[n_envs][1] = carry
        print(json.dumps({"rate": rate}), flush=True)


if __name__ == "__main__":
    main()
