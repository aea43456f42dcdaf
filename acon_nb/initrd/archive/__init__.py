"""Archives, read and written: newc as a kernel unpacks it, tar in all its forms, and what they are compressed with."""
