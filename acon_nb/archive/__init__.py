"""Trees of files in memory, and the archives they are read from and written to.

newc as a kernel unpacks it, tar in all its forms, layers laid over each other, and what archives are compressed with.
"""
