"""Networks whose classes cannot be had are refused in a sentence with the remedy."""

import re
import sys

import pytest

from marl_td.training.compose import compose

GIVEN = ["algorithm=marl_td/mappo", "task=marl_td/matrix_game"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model=layers/gnn",
            "model.gnn_class=torch_geometric.nn.conv.GraphConv needs the package 'torch_geometric', which "
            "is not installed; get it with: pip install torch_geometric",
        ),
        (
            "critic_model=layers/gnn",
            "critic_model.gnn_class=torch_geometric.nn.conv.GraphConv needs",
        ),
        (
            "model=sequence model/layers@model.layers.l1=mlp model/layers@model.layers.l2=gnn "
            "model.intermediate_sizes=[4]",
            "model.layers.l2.gnn_class=torch_geometric.nn.conv.GraphConv needs the package",
        ),
    ],
)
def test_a_network_whose_package_is_missing(override, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric", None)  # as if it were not installed
    with pytest.raises(ImportError, match=f"^{re.escape(message)}"):
        compose([*GIVEN, *override.split()])


@pytest.mark.parametrize("name", ["torch.nn.Foo", "foo.Bar", "Foo"])
def test_a_layer_that_there_is_not(name):
    with pytest.raises(
        ValueError, match=rf"^model\.activation_class: there is no class '{name}' \("
    ):
        compose([*GIVEN, f"model.activation_class={name}"])


def test_what_a_network_s_own_class_refuses_is_said_in_its_words():
    with pytest.raises(
        ValueError, match=r"^hidden_size, n_layers and encoder_cells must be at lea"
    ):
        compose([*GIVEN, "model=layers/marl_td/gru", "model.hidden_size=0"])
