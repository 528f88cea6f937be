"""Evaluators: what is measured, one file each, found by its name.

An evaluator file has `build(config, objective, data, mesh) -> Evaluator` (evaluators/base.py) and METRICS, which
declares the unit, the better direction and the meaning of each of its numbers.
"""
