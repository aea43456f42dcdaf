"""What a person sees of a report's page: without places where long names may break, and figures drawn twice."""

from __future__ import annotations

import re
from pathlib import Path


def shown(page: Path) -> str:
    """Return a page's HTML without `<wbr>`, and with the figures of a wide page only."""
    text = re.sub(r"<wbr\s*/?>", "", page.read_text())
    return re.sub(r'<img[^>]*class="narrow"[^>]*>', "", text)
