"""What an interpreter that has this folder on its path does first."""

import tests.small_network  # noqa: F401
