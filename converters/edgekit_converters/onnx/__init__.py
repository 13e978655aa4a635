"""Captured student -> ONNX: export, clean, resolve an int8 recipe, apply it, count what the engine really runs in int8.

export      torch.export program or .onnx file -> clean fp32 graph (onnx-ir)
resolve     fp32 graph -> Recipe, pure
calibrate   fp32 graph + samples -> ranges of the tensors that the recipe names
apply       fp32 graph + Recipe + ranges -> int8 graph
coverage    int8 file -> what ran in int8 in the engine's optimised graph
"""
