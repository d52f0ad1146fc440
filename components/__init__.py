"""The rooms of PhotoVerse: all logic lives here and runs without Prefect.

Each room has a public face (`__all__` of its package), a `Config` and a README. Which room may import which
is held by `tests/unit/test_architecture.py`.
"""
