"""Target networks: soft and hard updates by hand, frozen twins, messages."""

import copy

import pytest
import torch
from torch import nn

from marl_td.losses.targets import FrozenView, TargetUpdater, target_copy


def filled(value: float) -> nn.Module:
    """A network with a buffer, every number equal to ``value``."""
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            tensor.fill_(value)
    return net


def numbers(net: nn.Module) -> set[float]:
    """All floating numbers of a network."""
    tensors = [*net.parameters(), *net.buffers()]
    return {x for t in tensors if t.is_floating_point() for x in t.flatten().tolist()}


def test_a_target_copy_shares_nothing_and_takes_no_gradient():
    net = filled(1.0)
    target = target_copy(net)
    with torch.no_grad():
        net[0].weight.fill_(5.0)
    assert numbers(target) == {1.0}
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in net.parameters())


def test_soft_update_by_hand():
    """0 -> 0.25 -> 0.4375 towards 1 with tau 0.25; buffers move too."""
    net, target = filled(1.0), filled(0.0)
    updater = TargetUpdater([(net, target)], tau=0.25)
    updater.step()
    assert numbers(target) == {0.25}
    updater.step()
    assert numbers(target) == {0.4375}
    assert numbers(net) == {1.0}


def test_hard_update_copies_every_few_steps():
    net, target = filled(1.0), filled(0.0)
    updater = TargetUpdater([(net, target)], interval=3)
    seen = []
    for _ in range(6):
        updater.step()
        seen.append(numbers(target).pop())
        with torch.no_grad():
            net[0].bias.add_(0.0)
    assert seen == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert updater.n_steps == 6


def test_several_pairs_move_together():
    pairs = [(filled(1.0), filled(0.0)), (filled(2.0), filled(0.0))]
    TargetUpdater(pairs, tau=1.0).step()
    assert [numbers(target) for _, target in pairs] == [{1.0}, {2.0}]


def test_a_step_leaves_no_graph():
    net, target = filled(1.0), target_copy(filled(0.0))
    TargetUpdater([(net, target)], tau=0.5).step()
    assert all(p.grad_fn is None and not p.requires_grad for p in target.parameters())


# ------------------------------------------------------------- frozen views
def test_gradients_pass_through_a_frozen_view_and_none_ends_in_it():
    net = nn.Linear(2, 1)
    view = FrozenView(net)
    x = torch.ones(1, 2, requires_grad=True)
    view.module(x).sum().backward()
    torch.testing.assert_close(x.grad, net.weight)
    assert net.weight.grad is None


def test_a_frozen_view_sees_every_in_place_change():
    net = nn.Linear(2, 1)
    view = FrozenView(net)
    net.load_state_dict({"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
    optimiser = torch.optim.SGD(net.parameters(), lr=1.0)
    net(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    assert torch.equal(view.module.weight, net.weight)
    assert net.weight.tolist() == [[0.0, 0.0]]


def test_a_copy_of_a_frozen_view_is_tied_to_the_copied_source():
    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 1)
            self.view = FrozenView(self.net)

    owner = Owner()
    twin = copy.deepcopy(owner)
    assert list(twin.state_dict()) == ["net.weight", "net.bias"]
    with torch.no_grad():
        twin.net.weight.fill_(3.0)
    assert twin.view.module.weight.tolist() == [[3.0, 3.0]]
    assert not torch.equal(owner.net.weight, twin.net.weight)


def test_tie_after_the_tensors_were_replaced():
    net = nn.Linear(2, 1)
    view = FrozenView(net)
    net.double()
    view.tie()
    assert view.module.weight.dtype == torch.float64
    assert view.module.weight.data_ptr() == net.weight.data_ptr()


def test_messages():
    pair = [(filled(1.0), filled(0.0))]
    with pytest.raises(ValueError, match=r"`tau` must lie in \[0, 1\]; got 1.5"):
        TargetUpdater(pair, tau=1.5)
    with pytest.raises(ValueError, match=r"`tau` must be above 0, or the target never moves"):
        TargetUpdater(pair, tau=0.0)
    with pytest.raises(ValueError, match="`interval` must be at least 1; got 0"):
        TargetUpdater(pair, interval=0)
    with pytest.raises(TypeError, match=r"got Sequential. Of a loss give `loss.target_pairs\(\)`"):
        TargetUpdater(filled(1.0))
    with pytest.raises(ValueError, match=r"a target network must have its source's structure"):
        TargetUpdater([(filled(1.0), nn.Linear(2, 3))])
