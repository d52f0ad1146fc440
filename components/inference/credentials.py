"""Content credentials: a C2PA manifest, signed on this machine, that says how a file came to be.

The key and its certificate are made here at first use and never leave their folder. They prove that a file
is unchanged since this machine wrote it. Whose machine that is they do not prove: for that, put `chain.pem`
and `key.pem` of an authority that C2PA's trust list knows into the folder. Where no folder is named, a key is
made for the process and goes with it.
"""

import atexit
import io
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.inference.provenance import source_type

CHAIN, SIGNING_KEY = "chain.pem", "key.pem"
LIFETIME = timedelta(days=3650)
_SETTINGS = {
    "version": 1,
    "builder": {"thumbnail": {"enabled": False}},  # ten times the size of a small picture
    "verify": {"verify_after_sign": False, "ocsp_fetch": False, "remote_manifest_fetch": False},
}


@dataclass(frozen=True)
class Seal:
    """Signs files with the credentials of a folder; holds no secret itself.

    Attributes:
        folder: Holds `chain.pem` (signer's certificate first) and `key.pem` (ECDSA, P-256).
    """

    folder: Path

    def sign(self, data: bytes, mime: str, facts: dict[str, Any]) -> bytes:
        """Returns the file with a manifest: created by a generative model, and the recipe.

        Args:
            data: A PNG or JPEG file.
            mime: "image/png" or "image/jpeg".
            facts: The recipe.
        """
        import c2pa

        agent = {"name": "PhotoVerse"}
        created = {"action": "c2pa.created", "digitalSourceType": source_type(facts), "softwareAgent": agent}
        manifest = {
            "claim_generator_info": [agent],
            "assertions": [
                {"label": "c2pa.actions", "data": {"actions": [created]}},
                {"label": "photoverse.recipe", "data": facts},
            ],
        }
        signed = io.BytesIO()
        signer, context = _signer(self.folder)
        c2pa.Builder(json.dumps(manifest), context).sign(signer, mime, io.BytesIO(data), signed)
        return signed.getvalue()


@lru_cache(maxsize=4)
def _signer(folder: Path) -> tuple[Any, Any]:
    import c2pa

    chain, key = (folder / CHAIN).read_bytes(), (folder / SIGNING_KEY).read_bytes()
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, chain, key, None)
    return c2pa.Signer.from_info(info), c2pa.Context(c2pa.Settings.from_dict(_SETTINGS))


def load_seal(folder: Path | None) -> Seal:
    """Returns the seal of a folder; the first caller makes key and certificate.

    Args:
        folder: Where the key is kept; None takes one of this process, gone when it ends.

    Raises:
        ValueError: The folder is there, but key or certificate are missing.
    """
    if folder is None:
        return _seal_of_this_process()
    folder = folder.expanduser().resolve()
    if not folder.exists():
        _make_credentials(folder)
    missing = [name for name in (CHAIN, SIGNING_KEY) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)} in {folder}: put it there, or remove the folder")
    return Seal(folder)


@lru_cache(maxsize=1)
def _seal_of_this_process() -> Seal:
    place = Path(tempfile.mkdtemp(prefix="photoverse-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return load_seal(place / "credentials")


def _make_credentials(folder: Path) -> None:
    """Writes a new key and its certificate; of several processes at once one wins, and all use its own."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))  # for the owner's eyes alone
    try:
        chain, key = _new_chain(datetime.now(UTC))
        (made / CHAIN).write_bytes(chain)
        (made / SIGNING_KEY).write_bytes(key)
        (made / SIGNING_KEY).chmod(0o600)
        os.rename(made, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _new_chain(now: datetime) -> tuple[bytes, bytes]:
    """Returns (certificates as PEM, key as PEM): a signer below a root whose key is thrown away."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("root", root_key, root_key, now)
    signer = _certificate("signer", key, root_key, now)
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signer.public_bytes(pem) + root.public_bytes(pem), secret


def _certificate(role: str, key: Any, root_key: Any, now: datetime) -> Any:
    """One X.509 certificate as C2PA wants it: a signer states what its key is for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(part: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "PhotoVerse on this machine")
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, part)])

    is_root = role == "root"
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
              "encipher_only", "decipher_only")  # fmt: skip
    usage = x509.KeyUsage(
        digital_signature=not is_root, key_cert_sign=is_root, **dict.fromkeys(others, False)
    )  # fmt: skip
    extensions = [
        (x509.BasicConstraints(ca=is_root, path_length=0 if is_root else None), True),
        (usage, True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False),
    ]
    if not is_root:
        extensions.append((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False))
    builder = x509.CertificateBuilder(name("root"), name(role), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + LIFETIME)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(root_key, hashes.SHA256())


def read_manifest(data: bytes, mime: str) -> dict[str, Any] | None:
    """Returns what a file's content credentials say, None if it has none.

    Args:
        data: A PNG or JPEG file.
        mime: "image/png" or "image/jpeg".

    Returns:
        `state` ("trusted", "valid": unchanged but of a signer that no trust list knows, or "invalid"),
        `issuer`, `source_type`, `problems` (C2PA's codes).
    """
    import c2pa

    context = c2pa.Context(c2pa.Settings.from_dict(_SETTINGS))
    try:
        found = json.loads(c2pa.Reader(mime, io.BytesIO(data), context=context).json())
    except c2pa.C2paError as error:
        if isinstance(error, c2pa.C2paError.ManifestNotFound):
            return None
        return {"state": "invalid", "issuer": None, "source_type": None, "problems": [str(error)]}
    manifest = found["manifests"][found["active_manifest"]]
    actions = [action for assertion in manifest.get("assertions", [])
               for action in assertion["data"].get("actions", []) if isinstance(action, dict)]  # fmt: skip
    return {
        "state": found["validation_state"].lower(),
        "issuer": manifest.get("signature_info", {}).get("issuer"),
        "source_type": next((action.get("digitalSourceType") for action in actions), None),
        "problems": [status["code"] for status in found.get("validation_status") or []],
    }
