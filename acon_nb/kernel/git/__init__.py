"""Git trees of kernels: a user's, which is only read, and a checkout of our own of it."""
