"""Objectives: what is minimised, one file each, found by its name.

An objective file has `build(config, spec) -> Objective` (objectives/base.py), and METRICS, what its losses report.
"""
