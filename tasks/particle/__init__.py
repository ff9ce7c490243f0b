"""Particle worlds: discs that are pushed about in the plane and repel one another."""

from marl_td.tasks.particle.simple_adversary import AdversaryParams, SimpleAdversary
from marl_td.tasks.particle.simple_speaker_listener import (
    SimpleSpeakerListener,
    SpeakerListenerParams,
)
from marl_td.tasks.particle.simple_spread import SimpleSpread, SpreadParams, SpreadState
from marl_td.tasks.particle.simple_tag import SimpleTag, TagParams

__all__ = [
    "AdversaryParams",
    "SimpleAdversary",
    "SimpleSpeakerListener",
    "SimpleSpread",
    "SimpleTag",
    "SpeakerListenerParams",
    "SpreadParams",
    "SpreadState",
    "TagParams",
]
