"""Run the array API standard's own test suite against bestiary.

    git clone --recurse-submodules https://github.com/data-apis/array-api-tests
    pip install -r array-api-tests/requirements.txt
    python tests/references/array_api.py array-api-tests [--max-examples 100] [pytest options]

It ends with an error if a test fails that tests/core/array_api_xfails.txt does not list. Counts in
that file were taken at commit 55fcc60 of the suite, with --max-examples 40.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

XFAILS = Path(__file__).parents[1] / "core" / "array_api_xfails.txt"


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    environment = dict(os.environ, ARRAY_API_TESTS_MODULE="bestiary")
    command = [sys.executable, "-m", "pytest", "array_api_tests", "-q", "-W", "ignore"]
    command += [f"--xfails-file={XFAILS}", *sys.argv[2:]]
    return subprocess.call(command, cwd=sys.argv[1], env=environment)


if __name__ == "__main__":
    sys.exit(main())
