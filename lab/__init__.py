"""The lab: everything the operator meets, as real processes on one machine, without containers or a cloud.

`Lab` (lab.lab) is the door; `make lab`, `make demo`, `make bench` and the integration tests come in through it.
The only imitation is the process node (lab.node), which runs Pods as local processes and says so.
"""
