"""Exit codes, and what the operating system refuses told in the program's own words."""

import errno

import pytest

from gentrain import errors


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, 5), (errno.EDQUOT, 5), (errno.EROFS, 2), (errno.EACCES, 2), (errno.EPERM, 2), (errno.ENOENT, None)],
)
def test_a_disk_that_is_full_or_must_not_be_written_to_is_no_fault_of_the_program(number, code):
    known = errors.explain(OSError(number, "what it is", "runs/x/metrics.jsonl"))
    assert (known and known.exit_code) == code
    assert not known or ("what it is" in str(known) and "runs/x/metrics.jsonl" in str(known))


def test_an_error_of_the_programs_own_is_itself_and_any_other_is_a_fault():
    error = errors.Diverged("steep")
    assert errors.explain(error) is error
    assert errors.explain(ValueError("a fault")) is None and errors.explain(KeyboardInterrupt()) is None
