"""Where things lie in the repository, for tests in any folder."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
DOCS, EXAMPLES = ROOT / "docs", ROOT / "examples"
SAMPLE, SCRIPTS, SUPPORT = TESTS / "sample_plugin", TESTS / "scripts", TESTS / "support"
