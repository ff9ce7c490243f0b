"""The table of the task's page: ``python -m marl_td.tasks.banking.table [--exact] [field=value ...]``.

``--exact`` prints the event clock with fresh loads, solved without simulation; otherwise every baseline
is simulated in the task as given, with 95 % intervals over episodes. ``--picture FILE`` draws one moment.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from marl_td.tasks.banking import optimum, policies, queueing
from marl_td.tasks.banking.chain import Chain
from marl_td.tasks.banking.dynamics import BankingState
from marl_td.tasks.banking.params import CHANNELS, GROUP, BankingParams
from marl_td.tasks.banking.task import Banking
from marl_td.tasks.base import Groups, Policy

PRICE = 0.05
"""Worth of a dollar of fees in s in the table's last optimum."""
Row = tuple[str, float, list[float], float, float]
"""Policy, mean latency in ms, share per channel, $ per payment, risk."""


def exact_rows(task: Banking) -> Iterator[Row]:
    """Long-run figures on the event clock with fresh loads: closed forms and exact evaluations."""
    params = task.params
    chain = Chain(params, "event")
    number = chain.number
    load = number.movedim(0, -1).float()

    def evaluated(name: str, share: Tensor) -> Row:
        found = optimum.evaluate(chain, share)
        return name, 1000.0 * found.latency, found.split, found.fee, found.risk

    def closed(name: str, split: list[float]) -> Row:
        fee = sum(s * price for s, price in zip(split, params.price, strict=True))
        risk = sum(s * r for s, r in zip(split, params.risk, strict=True))
        return name, 1000.0 * queueing.split_latency(params, split), split, fee, risk

    def solved(name: str, fee: list[float]) -> Row:
        table = chain.solve(torch.tensor([fee], dtype=torch.float64)).table[0, 0]
        return evaluated(name, optimum.one_hot(table))

    def cheapest(cost: Tensor) -> Tensor:
        return optimum.one_hot(cost.argmin(-1))

    split = queueing.best_split(params)
    yield closed("uniform (analytic)", [1.0 / len(CHANNELS)] * len(CHANNELS))
    yield evaluated("join smallest n/c", cheapest(load / task.tables.servers))
    yield closed("best static split (analytic)", split)
    yield evaluated("shortest expected delay", cheapest(policies.delay(task, load)))
    first, second = optimum.best_thresholds(params)
    spill = optimum.spill_table(number, first, second)
    yield evaluated(f"best thresholds ({first}, {second})", optimum.one_hot(spill))
    index = policies.improvement(task)
    yield evaluated("policy improvement of the split", cheapest(index(load)))
    yield solved("optimum, latency", [0.0] * len(CHANNELS))
    yield solved(f"optimum, latency + {PRICE} s per $", [PRICE * price for price in params.price])


def act(task: Banking, policy: Policy, state: BankingState) -> Groups:
    """What ``policy`` does in ``state``."""
    seen = {
        "observation": task.observe(state)[GROUP],
        "action_mask": task.action_mask(state)[GROUP],
    }
    td = TensorDict({GROUP: seen, "state": task.team_state(state)}, state.queue.shape[:1])
    return {GROUP: policy(td)[GROUP, "action"]}


def simulate(task: Banking, policy: Policy, n_envs: int, seed: int = 0) -> dict[str, Tensor]:
    """Totals per episode ``{name: [n_envs]}`` of one episode of ``policy`` in every environment."""
    generator = torch.Generator(device=task.device).manual_seed(seed)
    state = task.reset(n_envs, task.draw_reset(n_envs, generator))
    totals = {key: torch.zeros(n_envs, device=task.device) for key in task.info_keys}
    for _ in range(task.params.max_steps):
        seen = {
            "observation": task.observe(state)[GROUP],
            "action_mask": task.action_mask(state)[GROUP],
        }
        td = TensorDict({GROUP: seen, "state": task.team_state(state)}, [n_envs])
        action = {GROUP: policy(td)[GROUP, "action"]}
        step = task.step(state, action, task.draw_step(n_envs, generator))
        state = step.state
        totals = {key: total + step.info[key] for key, total in totals.items()}
    totals["steps"] = torch.full((n_envs,), float(task.params.max_steps), device=task.device)
    return totals


def simulated_rows(task: Banking, n_envs: int) -> Iterator[tuple[Row, float]]:
    """Every baseline's figures in the task as given, with the half width of the latency's interval."""
    for name, policy in task.baselines().items():
        totals = simulate(task, policy, n_envs)
        score = task.score(totals)
        half = 1.96 * float(score.std()) / n_envs**0.5
        sent = torch.stack([totals[name].sum() for name in CHANNELS])
        split = (sent / sent.sum()).tolist()
        fee = float(totals["fees"].sum() / sent.sum())
        risk = float(totals["loss"].sum() / totals["amount"].sum())
        yield (name, float(score.mean()), split, fee, risk), half


def line(row: Row, half: float | None = None) -> str:
    """One row of the Markdown table."""
    name, latency, split, fee, risk = row
    interval = "" if half is None else f" +- {half:.2f}"
    shares = " / ".join(f"{100 * s:.1f}" for s in split)
    return f"| {name} | {latency:.2f}{interval} | {shares} | {fee:.3f} | {100 * risk:.2f} |"


def main(arguments: list[str] | None = None) -> None:
    """Print the table that the arguments ask for."""
    parser = argparse.ArgumentParser(description="Table of routing rules of the banking task.")
    parser.add_argument("--exact", action="store_true", help="event clock, no simulation")
    parser.add_argument("--episodes", type=int, default=256, help="episodes per rule (256)")
    parser.add_argument("--picture", metavar="FILE", help="draw one moment to FILE instead")
    parser.add_argument("fields", nargs="*", metavar="field=value", help="task parameters (JSON)")
    chosen = parser.parse_args(arguments)
    pairs = [text.split("=", 1) for text in chosen.fields]
    task = Banking(BankingParams(**{name: _value(value) for name, value in pairs}))
    torch.set_num_threads(1)
    if chosen.picture:
        _picture(task, chosen.picture)
        return
    print("| policy | mean latency, ms | int / ext / chain, % | $ / payment | risk, % |")
    print("| --- | --- | --- | --- | --- |")
    if chosen.exact:
        for row in exact_rows(task):
            print(line(row), flush=True)
        if task.params.classes:
            _print_constraints(task.params)
        return
    for row, half in simulated_rows(task, chosen.episodes):
        print(line(row, half), flush=True)
    best = task.optimum()
    print("no bound" if best is None else f"\n{best.kind}: {best.value:.2f} ms ({best.how})")


def _print_constraints(params: BankingParams) -> None:
    """Least latency under the two readings of the risk limit (event clock, fresh loads)."""
    limit = f"{100 * params.risk_limit:g} %"
    mean, price = optimum.portfolio_bound(params)
    print(
        f"\nmean risk at most {limit}: {1000 * mean:.2f} ms (price {1000 * price:.0f} ms per unit)"
    )
    print(f"risk of every payment at most {limit}: {1000 * optimum.payment_bound(params):.2f} ms")


def _value(text: str) -> Any:
    """A parameter's value: JSON, or the text itself where it is a plain word."""
    return text if text.isalpha() and text not in ("true", "false") else json.loads(text)


def _picture(task: Banking, path: str) -> None:
    """Draw the task after a second of shortest expected delay."""
    from matplotlib.image import imsave

    generator = torch.Generator().manual_seed(0)
    state = task.reset(1, task.draw_reset(1, generator))
    policy = task.baselines()["shortest_delay"]
    for _ in range(200):
        seen = {
            "observation": task.observe(state)[GROUP],
            "action_mask": task.action_mask(state)[GROUP],
        }
        td = TensorDict({GROUP: seen, "state": task.team_state(state)}, [1])
        action = {GROUP: policy(td)[GROUP, "action"]}
        state = task.step(state, action, task.draw_step(1, generator)).state
    imsave(path, task.render(state))


if __name__ == "__main__":
    main()
