"""An image of the user's as the workload of a swap study: measured, then run at shares of its peak (docs/your-image.md)."""
