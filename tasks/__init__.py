"""Batched multi-agent tasks in torch, and adapters to and from other environments."""
