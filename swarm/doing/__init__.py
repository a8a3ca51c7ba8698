"""The life of a task at its requester, and of an attempt at its worker."""
