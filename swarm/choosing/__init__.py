"""Who shall do it: eligibility, what this node has itself seen of each worker, the cost of each, and the draw."""
