"""Sources of data, one file each, found by its name.

A source file has `read(argument, data, options) -> Corpus`, or, where examples are made as they are asked for,
`build(config, rows) -> Data`.
"""
