"""Which version of this program is running."""


def program_version() -> str:
    """The installed distribution's version, or that of a source tree."""
    from importlib import metadata  # Costs a fifth of the client's start, so only when asked.

    try:
        return metadata.version("starlings")
    except metadata.PackageNotFoundError:
        return "0.1.0+tree"
