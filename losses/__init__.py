"""Loss modules for multi-agent reinforcement learning, and their mathematics as pure functions.

``marl_td.losses.functional`` needs torch alone; the loss modules here need tensordict and torchrl.
"""
