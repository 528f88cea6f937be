"""Models: pure functions from parameters to outputs. The only room that knows Flax; one file each, found by its name.

A model file has `build(config, spec)`, which returns a SequenceModel, Sampler or DensityModel of models/base.py; one
whose critic is not simply a critic of prefixes has `critic(config, spec) -> Critic` as well. config: the network's
section, as config.model.
"""
