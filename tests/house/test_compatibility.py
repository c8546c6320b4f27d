"""The compatibility page says what the tests show."""

from __future__ import annotations

from fresh import run_with_torch
from places import ROOT, SUPPORT


def test_the_page_is_what_the_tests_say():
    done = run_with_torch("-P", SUPPORT / "compatibility.py", "--check", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
