"""The HTTP doors of a node: OpenAI-compatible for anybody's tools, and the control API for the command line."""
