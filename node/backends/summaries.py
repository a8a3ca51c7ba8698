"""What a model that chats is told for the skill `summarize`."""

SYSTEM = "You are a careful editor."
REQUEST = "Summarize the following text in one sentence.\n\nText: {text}"


def summary_turns(text: str) -> list[list[str]]:
    """The turns, as [role, text], that ask for a summary of this text."""
    return [["system", SYSTEM], ["user", REQUEST.format(text=text.strip())]]
