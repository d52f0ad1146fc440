"""Pre-commit checks: no file too large, none that holds a secret. Standard library only."""

import argparse
import re
import sys
from pathlib import Path

MAX_BYTES = 8 * 2**20
BASE = "components/portraits/base/"
MAX_BASE_BYTES = 24 * 2**20  # the portrait world's weights come with the repository, all of them under 24 MB
SECRETS = {
    "a private key": re.compile(r"-----BEGIN (?:RSA |EC |OPENSSH |DSA )?PRIVATE KEY-----"),
    "a cloud access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a hub token": re.compile(r"\b(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36,}|pnu_[A-Za-z0-9]{30,})\b"),
}


def too_large(name: str) -> str | None:
    """Returns what is wrong with the file's size, or None."""
    limit = MAX_BASE_BYTES if BASE in name else MAX_BYTES
    size = Path(name).stat().st_size
    return (
        f"{name}: {size / 2**20:.1f} MB, at most {limit / 2**20:.0f} MB are allowed" if size > limit else None
    )


def holds_secret(name: str) -> str | None:
    """Returns which secret the file seems to hold, or None."""
    text = Path(name).read_text(encoding="utf-8", errors="ignore")
    found = next((what for what, pattern in SECRETS.items() if pattern.search(text)), None)
    return f"{name}: seems to hold {found}" if found else None


def main() -> int:
    """Checks the files named on the command line; returns 1 if one is at fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="check sizes")
    parser.add_argument("--secrets", action="store_true", help="check contents")
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    checks = [too_large] * options.large + [holds_secret] * options.secrets
    faults = [
        fault for name in options.files if Path(name).is_file() for check in checks if (fault := check(name))
    ]
    print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
