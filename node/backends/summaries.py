"""What a model that chats is told for the skill `summarize`."""

REQUEST = "Summarize this in one sentence:\n\n{text}"
"""Of eleven wordings on five paragraphs, with and without a system turn, the one after which SmolLM2-135M keeps to one sentence
and mostly to the facts. With a system turn of our own it sets out to improve the text instead."""


def summary_turns(text: str) -> list[list[str]]:
    """The turns, as [role, text], that ask for a summary of this text."""
    return [["user", REQUEST.replace("{text}", text.strip())]]
