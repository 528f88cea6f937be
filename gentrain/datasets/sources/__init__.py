"""Sources of data, one file each, found by its name.

A source file has `read(argument, data) -> Corpus`, which reads a set of examples once into the cache; or, where
examples are drawn or put together, `build(config, workdir, rows) -> Data`. argument: what stands after the colon in
data.name; data: config.data. A source that knows the spec of a set which is still to be fetched has
`expected_spec(argument, data)`, and one whose sets are fetched beforehand has `prepare(argument)`.
"""
