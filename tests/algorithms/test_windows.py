"""Windows in whole experiments: exact stored states, sizes, compiled collection, what they can learn."""

import pytest
import torch
from benchmarl.models.common import SequenceModelConfig
from benchmarl.models.mlp import MlpConfig
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU
from discrete_teams import teams_task
from toy_games import RECALL_RUN, recall_task

from marl_td.collect.collector import CompiledCollector
from marl_td.collect.window_replay import WindowReplayBuffer
from marl_td.registry import algorithm_config

pytestmark = IGNORED

MLP = MlpConfig(num_cells=[8], activation_class=torch.nn.Tanh, layer_class=torch.nn.Linear)
BEHIND_AN_MLP = SequenceModelConfig(model_configs=[MLP, STATEFUL], intermediate_sizes=[6])
WINDOWS = {"sequence": "window", "window_length": 2, "burn_in": 1}


@pytest.mark.parametrize(
    ("model", "shared", "compiled"),
    [
        (STATEFUL, False, False),
        (BEHIND_AN_MLP, True, False),
        pytest.param(STATEFUL, True, True, marks=pytest.mark.slow),
    ],
)
def test_windows_of_an_experiment_have_the_values_of_the_collection(
    model, shared, compiled, small_experiment
):
    """For every group, across batches, in the middle of episodes; also of our collector."""
    config = algorithm_config("qmix")(last_action=True, agent_id=True, **WINDOWS)
    task = teams_task(masked=False, mortal=True, max_steps=7)
    experiment = small_experiment(config, task, model=model, share_policy_params=shared)
    collector = experiment.collector
    if compiled:
        arguments = (experiment.env_func(), experiment.policy)
        collector = CompiledCollector(*arguments, frames_per_batch=24, backend="eager")
    for _, batch in zip(range(3), collector, strict=False):
        experiment._on_batch_collected(batch)
        for group, buffer in experiment.replay_buffers.items():
            seen = batch[group, "action_value"].clone()
            data = batch.exclude(*experiment._get_excluded_keys(group))
            data = experiment.algorithm.process_batch(group, data)
            data[group, "seen"] = seen
            buffer.extend(data)
    for group, buffer in experiment.replay_buffers.items():
        assert type(buffer) is WindowReplayBuffer
        window, loss = buffer[:], experiment.losses[group]
        now, _ = loss._live(loss.network, window, (group, "action_value"))
        real = window["step_mask"][:, 1:, 0]
        torch.testing.assert_close(now[real], window[group, "seen"][:, 1:][real])
        middle = ~window["is_init"][:, 0, 0]
        assert window[group, "hidden_gru_0" if model is STATEFUL else "hidden_gru_1"][middle].any()
    experiment.close()


def test_sizes_count_steps_and_windows_end_with_the_time_limit(small_experiment):
    config = algorithm_config("vdn")(sequence="window", window_length=4, burn_in=3)
    experiment = small_experiment(config, recall_task(), model=STATEFUL)
    assert experiment.algorithm.window == (0, 4)  # the whole episode
    config = algorithm_config("vdn")(
        sequence="window", window_length=3, burn_in=3, window_overlap=0.0
    )
    experiment = small_experiment(config, recall_task(), model=STATEFUL)
    buffer = experiment.replay_buffers["agents"]
    assert (buffer.burn_in, buffer.length, buffer.stride) == (1, 3, 3)
    assert (buffer.storage.max_size, buffer.batch_size) == (400 // 4, 12 // 4)
    assert experiment.losses["agents"].burn_in == 1


# What burns in or cuts windows has no effect here, and says so (tests/algorithms/test_idle_settings.py).
@pytest.mark.filterwarnings("ignore:algorithm.* has no effect here")
def test_feed_forward_networks_take_windows_without_burn_in(small_experiment):
    config = algorithm_config("vdn")(n_steps=2, **WINDOWS)
    experiment = small_experiment(config, recall_task())
    buffer, loss = experiment.replay_buffers["agents"], experiment.losses["agents"]
    assert (type(buffer), buffer.burn_in) == (WindowReplayBuffer, 0)
    assert (loss.burn_in, loss.states) == (0, [])
    experiment.run()
    assert buffer[:].shape[1:] == (2,)
    single = small_experiment(algorithm_config("vdn")(**WINDOWS), recall_task())
    assert not single.losses["agents"].sequences


def test_a_stored_state_is_worth_what_it_remembers(small_experiment):
    """Recall in windows of one step: when the answer is due, the cue is in the stored state only.

    The last layer alone, trained by the loss on the windows of random play, answers rightly; on the same
    windows without their states it cannot know better than by chance.
    """
    config = algorithm_config("iql")(sequence="window", window_length=1, burn_in=0)
    settings = {**RECALL_RUN, "lr": 0.0, "exploration_eps_end": 1.0}
    experiment = small_experiment(config, recall_task(), model=STATEFUL, **settings)
    experiment.run()
    loss, batch = experiment.losses["agents"], experiment.replay_buffers["agents"][:]
    forgotten = batch.clone()
    (state,) = loss.states
    forgotten[state].zero_()
    answers = batch["next", "done"].squeeze(-1).squeeze(-1)
    cue = batch["state"][answers][:, 0, :4].unflatten(-1, (2, 2)).argmax(-1)  # one-hot, per agent
    initial = {name: value.clone() for name, value in loss.network.state_dict().items()}
    shares = []
    for data in (batch[answers], forgotten[answers]):
        loss.network.load_state_dict(initial)
        head = [p for name, p in loss.network.named_parameters() if "head" in name]
        optimiser = torch.optim.Adam(head, lr=0.1)
        for _ in range(400):
            optimiser.zero_grad()
            loss(data.clone())["loss_value"].backward()
            optimiser.step()
        greedy = loss._action_values(data).now[:, 0].argmax(-1)
        shares.append((greedy == cue).float().mean().item())
    assert shares[0] > 0.95
    assert 0.4 < shares[1] < 0.6


# --------------------------------------------------------------------- messages
def test_networks_that_keep_no_state_are_refused(small_experiment):
    config = algorithm_config("vdn")(**WINDOWS)
    for model in (
        THEIR_GRU,
        SequenceModelConfig(model_configs=[STATEFUL, THEIR_GRU], intermediate_sizes=[6]),
    ):
        with pytest.raises(
            ValueError, match=r"GruConfig|SequenceModelConfig does not give it to the data. Take mo"
        ):
            small_experiment(config, recall_task(), model=model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence": "chunk"}, "sequence must be one of episode, window; got 'chunk'"),
        ({"window_length": 0}, "window_length must be at least 1; got 0"),
        ({"window_overlap": 1.0}, "window_overlap must be in"),
        ({"burn_in": -1}, "burn_in must be at least 0; got -1"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        algorithm_config("vdn")(**options)
