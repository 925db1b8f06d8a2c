"""Training without padding (`train.packed`): sentences stand end to end, on CUDA and on a CPU in different ways.

A packer splits each update into batches: packers.py. A batch computes its loss: `PackedBatch` in cuda_batch.py by
flash attention, `GroupedBatch` in cpu_batch.py by attention in padded groups, and both by end_to_end.py. models.py says
which models can be trained so, and compilation.py compiles their layers on CUDA.
"""
