"""Data: a name in the config -> batch(step), a pure function of the seed and the step. Only here is Grain or TFDS.

Each source (sources/) is read once into a raw corpus (store); tokenizers turn it into tokens; rows cuts those into rows
and orders them; build puts it together; spec is what models and evaluators must know.
"""
