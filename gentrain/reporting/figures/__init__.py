"""Figures: pictures of theory and of a sweep beside it, one file each, found by its name.

A figure file has `draw(results, path) -> numbers`. results: the variants of a sweep by name, each with its resolved
"config" (flat), the "folder" that it is in, its "final" metrics and their "best". The picture goes to path; the numbers
behind it are returned for report.json.
"""
