"""The algorithms: one short file each, with the family bases beside them.

Importing any of them registers all of the package with BenchMARL: a process that a Hydra launcher
starts receives pickled settings, which import this package, but never runs the Hydra plugin.
"""

from marl_td import register

register()
