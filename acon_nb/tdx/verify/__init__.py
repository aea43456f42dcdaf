"""Verify a TD's evidence: the quote's signature up to Intel's root, the platform's TCB, the log, what was expected."""
