"""Figures: pictures of theory and of a sweep beside it, one file each, found by its name.

A figure file has `draw(results, path) -> numbers`: results are the variants of a sweep by name, each with its resolved
"config" (flat), its "final" metrics and their "best"; the picture goes to path, and the numbers behind it are returned
for report.json.
"""
