"""Keeps a model in config.toml, so that the next start offers it too. Comments and order of the file stay."""

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
