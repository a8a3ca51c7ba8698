"""How a larger task is led: plans that split it into tasks for several workers, and whoever drives them."""
