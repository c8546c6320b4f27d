"""The compatibility page says what the tests show."""

from __future__ import annotations

import subprocess
import sys

from places import SUPPORT


def test_the_page_is_what_the_tests_say(tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", SUPPORT / "compatibility.py", "--check"],
        cwd=SUPPORT.parent.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
