"""What `photoverse doctor` finds, and how it says it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        subject: What was looked at.
        found: What was found.
        mend: What to do about it; empty when all is well.
    """

    subject: str
    found: str
    mend: str = ""


def say(findings: Sequence[Finding]) -> str:
    """Returns the findings as lines for people."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'--' if finding.mend else 'ok'}  {finding.subject:<{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"    {'':<{width}}  mend: {finding.mend}")
    sick = sum(bool(finding.mend) for finding in findings)
    return "\n".join([*lines, f"{sick} to mend" if sick else "all well"])


def as_json(findings: Sequence[Finding]) -> str:
    """Returns the findings for scripts."""
    return json.dumps([asdict(finding) | {"ok": not finding.mend} for finding in findings], indent=2)
