"""Which key store the settings name, opened or made. Must never read the token's PIN: the key store does.

Imported by the supervisor, so it knows nothing of grpc; the PKCS#11 backend is imported only when it is asked for.
A token's store is made in a process of its own: the supervisor forks, and a PKCS#11 module brings a thread.
"""

import subprocess
import sys

from crypto.errors import CryptoError, KeyStoreExistsError
from crypto.key_store.listed_store import ListedKeyStore
from crypto.key_store.software import SoftwareKeyStore
from crypto.key_store.token_settings import TokenMode, TokenSettings
from server.errors import ConfigurationError
from server.settings import Settings

MAKING_MAX_S = 60
EXIT_REFUSED = 2


def token_settings(settings: Settings) -> TokenSettings:
    """How the token is reached.

    Raises:
        ConfigurationError: no module or no PIN file is named.
    """
    if settings.pkcs11_module is None or settings.pkcs11_pin_file is None:
        raise ConfigurationError("key_store pkcs11 needs pkcs11_module and pkcs11_pin_file")
    return TokenSettings(
        module=settings.pkcs11_module,
        pin_file=settings.pkcs11_pin_file,
        label=settings.pkcs11_token_label,
        slot=None if settings.pkcs11_slot < 0 else settings.pkcs11_slot,
        mode=TokenMode(settings.pkcs11_mode),
        timeout_ms=settings.key_store_timeout_ms,
        sm4_mechanism=settings.pkcs11_sm4_mechanism,
        sm4_key_type=settings.pkcs11_sm4_key_type,
        tdes_derive_mechanism=settings.pkcs11_tdes_derive_mechanism,
        aes_derive_mechanism=settings.pkcs11_aes_derive_mechanism,
    )


def open_store(settings: Settings) -> ListedKeyStore:
    """Opens the key store.

    Raises:
        ConfigurationError: it does not open; one line says why.
    """
    try:
        if settings.key_store == "software":
            return SoftwareKeyStore.open(settings.keys_dir)
        from crypto.key_store.pkcs11_token import Pkcs11KeyStore

        return Pkcs11KeyStore.open(settings.keys_dir, token_settings(settings))
    except CryptoError as error:
        raise ConfigurationError(_line(error)) from None
    except ImportError:
        raise _no_binding() from None


def ensure_development_store(settings: Settings) -> None:
    """Makes the embedded default's key store, or adds the development keys that an older one lacks.

    Raises:
        ConfigurationError: it can neither be made nor opened; one line says why.
    """
    if settings.key_store == "software":
        make_or_complete(settings)
        return
    command = [sys.executable, "-P", "-m", "server.key_stores"]
    try:
        # The settings hold the DSN: through the pipe, never on the command line.
        made = subprocess.run(  # noqa: S603
            command,
            input=settings.to_json(),
            capture_output=True,
            text=True,
            check=False,
            timeout=MAKING_MAX_S,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"the key store was not made within {MAKING_MAX_S} s") from None
    if made.returncode == EXIT_REFUSED:
        raise ConfigurationError(made.stdout.strip())
    if made.returncode:
        raise ConfigurationError(f"making the key store ended with {made.returncode}: {made.stderr[-500:]}")


def make_or_complete(settings: Settings) -> None:
    """``ensure_development_store`` in this process."""
    try:
        if settings.key_store == "software":
            SoftwareKeyStore.create(settings.keys_dir)
        else:
            from crypto.key_store.pkcs11_token import Pkcs11KeyStore

            Pkcs11KeyStore.create(settings.keys_dir, token_settings(settings))
    except KeyStoreExistsError:
        # Only create knows whether an earlier creation was finished.
        _add_development_keys(settings)
    except (CryptoError, OSError) as error:
        raise ConfigurationError(f"key store {settings.keys_dir}: {_line(error)}") from None
    except ImportError:
        raise _no_binding() from None


def _add_development_keys(settings: Settings) -> None:
    try:
        open_store(settings).ensure_development_keys()
    except (CryptoError, OSError) as error:
        raise ConfigurationError(f"key store {settings.keys_dir}: {_line(error)}") from None


def _line(error: Exception) -> str:
    text = str(error)
    return text if text.startswith("key store") else f"key store: {text}"


def _no_binding() -> ConfigurationError:
    return ConfigurationError("key_store pkcs11 needs the package python-pkcs11: install onecard[pkcs11]")


def main() -> int:
    """Makes the store of the settings on stdin; what is refused is the one line on stdout."""
    try:
        make_or_complete(Settings.from_json(sys.stdin.read()))
    except ConfigurationError as error:
        sys.stdout.write(f"{error}\n")
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
