"""Print the oldest versions that setup.py admits, one requirement a line, for `make test-oldest`.

It reads what is installed: run it with the Python of an environment that hookline was installed into.
"""

import re
from importlib.metadata import requires

NOT_NEEDED = "lint", "dev"  # dev holds the others once more


def oldest() -> list[str]:
    """Give each library that hookline and its tests need, at its lower bound."""
    found = []
    for line in requires("hookline") or []:
        name, _, condition = line.partition(";")
        extra = re.search(r"extra *== *['\"](\w+)['\"]", condition)
        if extra is None or extra[1] not in NOT_NEEDED:
            found.append(name.strip().replace(">=", "=="))
    return sorted(set(found))


if __name__ == "__main__":
    print("\n".join(oldest()))
