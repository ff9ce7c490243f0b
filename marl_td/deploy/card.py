"""The card of a bundle: what it is, whose, where it comes from, how to use it."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from marl_td.deploy.agents import AgentExport
from marl_td.deploy.signature import DISCRETE
from marl_td.deploy.source import PolicySource

PACKAGES = (
    "marl_td",
    "torch",
    "torchrl",
    "tensordict",
    "benchmarl",
    "onnx",
    "onnxruntime",
    "onnxscript",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that made the bundle."""
    import marl_td

    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = marl_td.__version__ if name == "marl_td" else metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


def card_text(
    source: PolicySource, agents: list[AgentExport], evaluation: dict[str, Any], licence: str
) -> str:
    """The card as Markdown, with the front matter that model hubs read."""
    settings = source.settings
    first = agents[0]
    call = f"load(FOLDER, agent={first.name!r})"
    mask = ", mask=mask" if first.signature.mask is not None else ""
    lines = [
        "---",
        "library_name: marl_td",
        "tags: [reinforcement-learning, multi-agent, onnx]",
        "---",
        "",
        f"# Policy of {settings.algorithm} on {settings.task}",
        "",
        f"Decentralised actors of {len(agents)} agents: each acts on what it sees itself. "
        f"Mode: {first.signature.mode}.",
        "",
        "| agent | actor | observation | action |",
        "|---|---|---|---|",
        *(_row(agent) for agent in agents),
        "",
        *_communication(agents),
        "## Use",
        "",
        "```python",
        "from marl_td.deploy import load  # needs numpy and onnxruntime",
        "",
        f"policy = {call}",
        "state = None  # at the start of an episode",
        f"action, state = policy.act(observation, state{mask})",
        "```",
        "",
        "`signature.json` says what goes in and comes out. `actors/NAME.onnx` runs in any ONNX runtime, "
        "`NAME.pt2` is a `torch.export` program, `NAME.safetensors` the weights.",
        "",
        "## Evaluation",
        "",
        *_scores(evaluation),
        "",
        "## Licence and provenance",
        "",
        f"* Licence of these weights: {licence}. marl_td itself is under the MIT licence.",
        f"* Trained by `{settings.algorithm}` on `{settings.task}`, seed {settings.seed}; all settings are "
        "in `config.yaml`.",
        f"* Made with {', '.join(f'{name} {version}' for name, version in versions().items())}.",
        "* `manifest.json` lists every file with its SHA-256; `golden.npz` holds inputs and what the "
        "training policy made of them: `load_bundle(FOLDER, verify=True)` compares.",
        "",
    ]
    return "\n".join(lines)


def _row(agent: AgentExport) -> str:
    signature = agent.signature
    seen = ", ".join(f"{entry.name} {list(entry.shape)}" for entry in signature.observation)
    if signature.kind == DISCRETE:
        action = f"one of {signature.n_actions}" + (
            ", masked" if signature.mask is not None else ""
        )
    else:
        action = f"continuous {list(signature.action.shape)}"
    memory = ", with memory" if signature.state else ""
    return f"| {agent.name} | {signature.actor} | {seen} | {action}{memory} |"


def _communication(agents: list[AgentExport]) -> list[str]:
    told = next(
        (agent.signature.communication for agent in agents if agent.signature.communication), ""
    )
    return [f"**Communication.** {told}", ""] if told else []


def _scores(evaluation: dict[str, Any]) -> list[str]:
    report = evaluation["report"]
    if report is None:
        return [f"None: {evaluation['note']}."]
    learned = report.get("learned", {})
    numbers = [learned.get(name) for name in ("value", "low", "high")]
    if not all(isinstance(number, int | float) for number in numbers):
        return ["See `evaluation.json`."]
    value, low, high = numbers
    return [
        f"{value:.4g} {report.get('unit', '')} (95 % interval {low:.4g} to {high:.4g}) over "
        f"{report.get('episodes')} episodes; all rows are in `evaluation.json`."
    ]
