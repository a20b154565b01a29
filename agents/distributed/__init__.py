"""Several processes that train one model together, on one machine or on many.

A launcher begins them, `torchrun` or `accelerate launch`; `processes` says which of them this one
is, and brings numbers of all of them together; `learner` makes gradients with the others, by
PyTorch's DistributedDataParallel, or its FSDP2, of which `sharding` knows; `speaking` lets the
first say what all have wrong. Where there is one process, all of it is nothing.
"""
