"""Keeps a model in config.toml, so that the next start offers it too, or drops it. Comments and order of the file stay."""

from pathlib import Path

from node.exits import ExitCode, Failure
from node.store.atomic import write_atomically


def keep_model(config: Path, ref: str) -> bool:
    """Add a reference to [offer] models. False if it stands there already. Raises Failure; then the file is as it was."""
    import tomlkit  # Only this needs it, and it is not cheap.
    from tomlkit.exceptions import TOMLKitError

    try:
        text = config.read_text(encoding="utf-8") if config.exists() else ""
        document = tomlkit.parse(text)
        offer = document.setdefault("offer", tomlkit.table())
        models = offer.setdefault("models", tomlkit.array())
        if ref in models:
            return False
        models.append(ref)
    except (OSError, ValueError, TOMLKitError, AttributeError, TypeError) as error:
        raise Failure(
            "config_invalid",
            f"{config} cannot be extended: {error}",
            hint=f'The model is loaded. To keep it, write models = ["{ref}"] under [offer] there.',
            exit=ExitCode.CONFIG_INVALID,
        ) from None
    write_atomically(config, tomlkit.dumps(document).encode())
    return True


def drop_model(config: Path, refs: set[str]) -> bool:
    """Take these references out of [offer]. False if none stood there. Raises Failure; then the file is as it was."""
    import tomlkit  # Only this needs it, and it is not cheap.
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(config.read_text(encoding="utf-8") if config.exists() else "")
        dropped = False
        for key in ("models", "pinned"):
            listed = document.get("offer", {}).get(key, [])
            for ref in [ref for ref in listed if ref in refs]:
                listed.remove(ref)
                dropped = True
    except (OSError, ValueError, TOMLKitError, AttributeError, TypeError) as error:
        raise Failure(
            "config_invalid",
            f"{config} cannot be changed: {error}",
            hint="The model is gone until the next start. To drop it for good, take it out of [offer] models there.",
            exit=ExitCode.CONFIG_INVALID,
        ) from None
    if dropped:
        write_atomically(config, tomlkit.dumps(document).encode())
    return dropped
