"""The lab: everything the operator meets, as real processes on one machine, without containers or a cloud.

`make lab`, `make demo`, `make bench` and the integration tests use it through `Lab` (lab.lab). The only imitation is the
process node (lab.node), which runs Pods as local processes.
"""
