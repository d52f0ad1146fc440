"""`photoverse ui`: the page, on the champion or on an adapter's file."""

import ipaddress
import secrets
from typing import Any

from flows.config import anchored, resolve
from flows.environment import PROJECT


def open_page(
    model: str | None = None,
    profile: str = "portraits",
    settings: dict[str, Any] | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: str | None = None,
    wait: bool = True,
) -> str:
    """Serves the page until it is interrupted, and returns its address.

    Args:
        model: An adapter's file or a model URI; None takes the champion.
        profile: Where base, face tools, photo rules and default dials are taken from.
        settings: Over the profile's.
        host: Address to listen at.
        port: None takes a free one.
        auth: "name:password". None lets everybody in on this machine, and makes a password up beyond it.
        wait: Whether to block.

    Raises:
        ValueError: No model, no free port, or `auth` is no name with a password.
    """
    from components.inference import CardStore
    from components.page import Studio, launch_page
    from flows.single import load_personalizer

    allowed = page_auth(host, auth)
    config = anchored(resolve(profile, settings or {}, name="page"))
    personalizer = load_personalizer(config, model)
    studio = Studio(personalizer, config.batch.dials, CardStore(PROJECT / config.root / "people"))
    if allowed is not None and auth is None:
        print(f"name: {allowed[0]}  password: {allowed[1]}", flush=True)
    return launch_page(studio, host, port, allowed, wait)


def page_auth(host: str, auth: str | None) -> tuple[str, str] | None:
    """Returns name and password; None where the page is for this machine alone and none was asked for.

    Raises:
        ValueError: `auth` is no name with a password.
    """
    if auth is not None:
        name, colon, password = auth.partition(":")
        if not (name and colon and password):
            raise ValueError("--auth: expected NAME:PASSWORD")
        return name, password
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return None if here else ("photoverse", secrets.token_urlsafe(12))
