"""JaxMARL's side of `end_to_end.py`: its own `baselines/IPPO/ippo_ff_mpe.py` with its own settings.

    PYTHON_OF_JAXMARL benchmarks/end_to_end_jaxmarl.py CHECKOUT --frames 200000

It imports nothing of this package. The script's `wandb.log`, called after every iteration, becomes a line of
JSON as `end_to_end_run.py` prints it; nothing else is changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

try:
    import jax
    import yaml
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run this by JaxMARL's Python (benchmarks/stepping.py --install-peers).")


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a checkout of JaxMARL's repository")
    parser.add_argument("--frames", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = args.checkout / "baselines" / "IPPO"
    sys.path.insert(0, str(folder))
    import ippo_ff_mpe

    config = yaml.safe_load((folder / "config" / "ippo_ff_mpe.yaml").read_text())
    config["TOTAL_TIMESTEPS"] = args.frames
    steps = 0

    def log(metric: dict[str, Any]) -> None:
        nonlocal steps
        steps += config["NUM_ENVS"] * config["NUM_STEPS"]
        found = float(metric["returned_episode_returns"])
        print(json.dumps({"steps": steps, "return": found}), flush=True)

    ippo_ff_mpe.wandb.log = log
    train = jax.jit(ippo_ff_mpe.make_train(config))
    jax.block_until_ready(train(jax.random.PRNGKey(args.seed)))
    jax.effects_barrier()


if __name__ == "__main__":
    main()
