"""What users of losses get wrong: networks, options and names. Each is said in one sentence that names it."""

import inspect
import warnings
from typing import ClassVar

import pytest
import small_ddpg
import small_sac
import torch
from small_ppo import GROUP, actor, critic, small_loss
from small_qmix import make_batch, mixer, network
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn

import marl_td.losses
from marl_td.algorithms.base import MarlTdConfig
from marl_td.losses.agent_adam import AgentAdam
from marl_td.losses.coma import ComaLoss
from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.entries import MissingEntry
from marl_td.losses.facmac import FACMACLoss
from marl_td.losses.functional import inference
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.hasac import HASACLoss
from marl_td.losses.independent_q import IndependentQLoss
from marl_td.losses.masac import MASACLoss
from marl_td.losses.ppo import MAPPOLoss
from marl_td.losses.q_mixing import QMixingLoss
from marl_td.losses.soft_actor import SoftActor
from marl_td.losses.temperature import Temperature
from marl_td.losses.value_norm import PopArt, ValueNorm
from marl_td.registry import ALGORITHMS, algorithm_config

NAN, INFINITY = float("nan"), float("inf")
PLAIN = nn.Linear(4, 3)
NO_HEAD = TensorDictModule(PLAIN, [(GROUP, "observation")], [(GROUP, "logits")])


def ddpg_critic():
    return small_ddpg.make_critic({"agents": 2}, "agents")


def sac_critic():
    return small_sac.make_critic({"agents": 2}, "agents", 2, 1)


def masac(critics, temperature=None, make=small_sac.make_actor, **options):
    return MASACLoss(make(), critics, temperature or Temperature(-2.0), **options)


# ------------------------------------------------------------------------- modules
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MAPPOLoss(NO_HEAD, critic()),
            "`actor` must end in a distribution.*got TensorDictModule",
        ),
        (
            lambda: MAPPOLoss(TensorDictSequential(NO_HEAD, critic()), critic()),
            "`actor` must end in a distribution of actions; got TensorDictSequential. Make it a",
        ),
        (lambda: MAPPOLoss(critic(), actor("discrete")), "`actor` must end in a distribution"),
        (lambda: ComaLoss(NO_HEAD, network()), "`actor` must end in a distribution"),
        (
            lambda: MAPPOLoss(actor("discrete"), PLAIN),
            "`critic` must be a TensorDictModule; got Linear",
        ),
        (
            lambda: ComaLoss(actor("discrete"), PLAIN),
            "`critic` must be a TensorDictModule; got Linear",
        ),
        (
            lambda: QMixingLoss(PLAIN, mixer("sum")),
            "`network` must be a TensorDictModule; got Linear. Wrap",
        ),
        (lambda: QMixingLoss(network(), None), "`mixer` must be a TensorDictModule; got NoneType"),
        (
            lambda: QMixingLoss(network, mixer("sum")),
            r"`network` must be a TensorDictModule; got function",
        ),
        (
            lambda: MADDPGLoss(NO_HEAD, ddpg_critic()),
            "`actor` must be a GroupActor; got TensorDictModule",
        ),
        (
            lambda: MADDPGLoss(small_ddpg.make_actor(), PLAIN),
            "`critic` must be a TensorDictModule; got Linear",
        ),
        (
            lambda: FACMACLoss(small_ddpg.make_actor(), ddpg_critic(), PLAIN),
            "`mixer` must be a TensorDictModule; got Linear",
        ),
        (lambda: GroupActor(PLAIN), "`network` must be a TensorDictModule; got Linear"),
        (
            lambda: GroupActor(NO_HEAD, bounds=(-1.0, 1.0)),
            "`bounds` must be two tensors; got float",
        ),
        (
            lambda: masac(sac_critic()),
            "`critics` must be a list of critics; got TensorDictSequential",
        ),
        (
            lambda: masac([sac_critic(), PLAIN]),
            r"`critics\[1\]` must be a TensorDictModule; got Linear",
        ),
        (lambda: masac([sac_critic()], 0.1), "`temperature` must be a Temperature; got 0.1"),
        (
            lambda: masac([sac_critic()], make=small_ddpg.make_actor),
            "`actor` must be a SoftActor; got GroupActor. Wrap a network as SoftActor",
        ),
        (
            lambda: HASACLoss(
                small_sac.make_actor(),
                [sac_critic()],
                Temperature(-2.0),
                torch.optim.Adam(PLAIN.parameters()),
            ),
            "`optimiser` must be an AgentAdam; got Adam",
        ),
    ],
)
def test_modules_of_another_kind_are_refused_where_they_are_given(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def out_key(module: TensorDictModule, key) -> TensorDictModule:
    return TensorDictModule(module.module, module.in_keys, [key])


@pytest.mark.parametrize(
    ("loss", "batch", "message"),
    [
        (
            lambda: QMixingLoss(network(name="q"), mixer("sum")),
            make_batch,
            r"a network must write \('agents', 'action_value'\); TensorDictModule writes "
            r"\[\('agents', 'q'\)\]. Name it so in the network's `out_keys`",
        ),
        (
            lambda: IndependentQLoss(network(name="q")),
            make_batch,
            r"must write \('agents', 'action_value'\)",
        ),
        (
            lambda: QMixingLoss(mixer("sum"), network()),
            make_batch,
            r"must write \('agents', 'action_value'\); SumMixer writes \['global_value'\]",
        ),
        (
            lambda: QMixingLoss(network(), network()),
            make_batch,
            r"must write 'global_value'; TensorDictModule writes \[\('agents', 'action_value'\)\]",
        ),
        (
            lambda: MADDPGLoss(GroupActor(NO_HEAD), ddpg_critic()),
            small_ddpg.make_batch,
            r"must write \('agents', 'action'\); TensorDictModule writes \[\('agents', 'logits'\)\]",
        ),
        (
            lambda: MADDPGLoss(small_ddpg.make_actor(), network(2, name="q")),
            small_ddpg.make_batch,
            r"must write \('agents', 'chosen_action_value'\); TensorDictModule writes",
        ),
        (
            lambda: masac([sac_critic()], make=lambda: SoftActor(NO_HEAD)),
            small_ddpg.make_batch,
            r"must write \('agents', 'loc'\); TensorDictModule writes \[\('agents', 'logits'\)\]",
        ),
    ],
)
def test_a_network_with_another_output_is_named_with_what_it_writes(loss, batch, message):
    data = batch()
    # What acted has left its values in the batch: they must not be taken for the network's.
    data[GROUP, "action_value"] = torch.zeros(*data.shape, 2, 3)
    with pytest.raises(MissingEntry, match=message):
        loss()(data)


def test_a_batch_without_what_was_reached_is_named():
    for loss, batch in (
        (QMixingLoss(network(), mixer("sum")), make_batch()),
        (
            small_ddpg.make_loss(),
            small_ddpg.make_batch(),
        ),
    ):
        with pytest.raises(
            KeyError, match="the batch has no entry 'next' with what each step reached"
        ):
            loss(batch.exclude("next"))


# ------------------------------------------------------------------------- numbers
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_value": -1.0}, "`clip_value` must be at least 0; got -1.0"),
        ({"clip_value": NAN}, "`clip_value` must be at least 0 and finite; got nan"),
        ({"huber_delta": -1.0}, "`huber_delta` must be at least 0; got -1.0"),
        ({"critic_coeff": INFINITY}, "`critic_coeff` must be at least 0 and finite; got inf"),
        ({"entropy_coeff": NAN}, "`entropy_coeff` must be at least 0 and finite; got nan"),
        ({"clip_epsilon": NAN}, r"`clip_epsilon` must lie in \(0, 1\); got nan"),
    ],
)
def test_numbers_of_ppo_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small_loss(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small_loss(critic_coeff="1e-4"), "`critic_coeff` must be a number; got '1e-4'"),
        (
            lambda: QMixingLoss(network(), mixer("sum"), gamma=None),
            "`gamma` must be a number; got None",
        ),
        (
            lambda: QMixingLoss(network(), mixer("sum"), n_steps=1.5),
            "`n_steps` must be a whole number; got 1.5",
        ),
        (
            lambda: small_ddpg.make_matd3(policy_freq=True),
            "`policy_freq` must be a whole number; got True",
        ),
        (
            lambda: small_loss(value_norm="popart"),
            r"`value_norm` must be a ValueNorm, .* or None; got 'popart'",
        ),
        (lambda: small_loss(value_norm=ValueNorm), "`value_norm` must be a ValueNorm.*got <class"),
        (lambda: small_sac.make_loss(value_norm="running"), "`value_norm` must be a ValueNorm"),
        (
            lambda: ComaLoss(actor("discrete"), network(), value_norm="running"),
            "`value_norm` must be a ValueNorm",
        ),
        (
            lambda: small_loss(critic_states="hidden"),
            r"`critic_states` must be a sequence of keys; got 'hidden'. Write \['hidden'\]",
        ),
    ],
)
def test_options_of_another_type_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_actions": 0}, "`n_actions` must be at least 1; got 0"),
        ({"temperature": NAN}, "`temperature` must be above 0 and finite; got nan"),
        (
            {"bounds": (torch.ones(2), -torch.ones(2))},
            r"`bounds` must be finite, low below high; got low in \[1, 1\], high in \[-1, -1\]",
        ),
        ({"bounds": (torch.zeros(2), torch.full((2,), INFINITY))}, "`bounds` must be finite"),
    ],
)
def test_numbers_of_an_actor_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GroupActor(NO_HEAD, **options)


def test_zero_and_none_both_turn_a_limit_off():
    torch.manual_seed(0)
    policy, value = actor("discrete"), critic()
    for off in (0.0, 0, None):
        loss = MAPPOLoss(policy, value, clip_value=off, huber_delta=off)
        assert loss.clip_value is None and loss.huber_delta is None
        assert ComaLoss(policy, network(), huber_delta=off).huber_delta is None
        stacked = small_ddpg.make_actor(n_agents=2)
        optimiser = AgentAdam(stacked, 2, clip_norm=off, clip_value=off)
        assert optimiser.clip_norm is None and optimiser.clip_value is None
    kept = MAPPOLoss(policy, value, value_norm=PopArt(value), clip_value=0.3, huber_delta=2.0)
    assert (kept.clip_value, kept.huber_delta) == (0.3, 2.0)


# --------------------------------------------------------------------------- names
def test_a_misspelt_key_is_one_sentence_with_the_closest_names():
    loss = small_loss()
    with pytest.raises(ValueError) as error:
        loss.set_keys(mask=("agents", "other"), advantages=("agents", "x"))
    assert str(error.value) == "MAPPOLoss has no key 'advantages'. Did you mean 'advantage'?"
    assert loss.tensor_keys.mask == ("agents", "mask")  # nothing was set
    with pytest.raises(
        ValueError, match=r"MAPPOLoss has no key 'zzz'. Known: action, sample_log_prob, "
    ):
        loss.set_keys(zzz="x")


def test_keys_are_set_in_any_spelling_and_back():
    loss = small_loss()
    loss.set_keys(mask=("alive",), reward=["agents", "gain"])
    assert (loss.tensor_keys.mask, loss.tensor_keys.reward) == ("alive", ("agents", "gain"))
    loss.set_keys(mask=None)
    assert loss.tensor_keys.mask == ("agents", "mask")
    with pytest.raises(TypeError, match=r"`group` must be a name; got \('a',\)"):
        loss.set_group(("a",))


def test_a_misspelt_argument_is_named_with_the_closest_one():
    with pytest.raises(
        TypeError, match=r"MAPPOLoss has no argument 'entropy_coef'. Did you mean 'entropy_coeff'"
    ):
        small_loss(entropy_coef=0.1)
    with pytest.raises(
        TypeError, match=r"MADDPGLoss has no argument .* mean 'regularisation_coeff'"
    ):
        small_ddpg.make_loss(regularisation_coef=0.1)


def test_a_loss_of_somebody_else_may_have_names_of_its_own():
    class OwnLoss(MAPPOLoss):
        def __init__(self, *parts, **options):
            self.own = options.pop("own")
            super().__init__(*parts, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert OwnLoss(actor("discrete"), critic(), own=3).own == 3


def words_of(function) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_losses_say_coeff_and_settings_say_coef():
    """TorchRL's word and BenchMARL's; `docs/shapes.md`."""
    named = [getattr(marl_td.losses, name) for name in marl_td.losses.__all__]
    bases = {base for found in named if isinstance(found, type) for base in found.__mro__[:-1]}
    spoken = set().union(*(words_of(base.__init__) for base in bases))
    spoken |= words_of(inference.inference_error)
    assert {"entropy_coeff", "regularisation_coeff", "opt_coeff", "kl_coeff"} <= spoken
    assert not {word for word in spoken if word.endswith("coef")}
    configs = [algorithm_config(name) for name in ALGORITHMS]
    fields = {name for config in configs for name in config.__dataclass_fields__}
    assert issubclass(configs[0], MarlTdConfig) and "entropy_coef" in fields
    assert not {name for name in fields if name.endswith("coeff")}


def test_outputs_of_a_loss_are_known_to_a_class_made_after_its_first_instance():
    names = list(MAPPOLoss.out_keys)
    assert small_loss().out_keys == names and "loss_objective" in names

    class Curious(MAPPOLoss):
        out_keys: ClassVar[list[str]] = [*MAPPOLoss.out_keys, "surprise"]

    class Plain(MAPPOLoss):
        pass

    loss = Plain(actor("discrete"), critic())
    assert Curious(actor("discrete"), critic()).out_keys == Curious.out_keys == [*names, "surprise"]
    assert loss.out_keys == Plain.out_keys == MAPPOLoss.out_keys == names
    loss.select_out_keys("entropy")
    assert loss.out_keys == ["entropy"] and Plain.out_keys == names
