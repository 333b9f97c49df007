"""`python -m bestiary.core.native`: what is in use; exit code 1 when nothing was built."""

import sys

from .runtime import info

facts = info()
for key, value in facts.items():
    print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
sys.exit(0 if facts["built"] else 1)
