"""Pages of the documentation's site that lie outside docs/, and links to files that are no pages.

mkdocs calls these functions (`hooks` in mkdocs.yml).
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PAGES = {  # files beside docs/: their pages
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"\]\(([^()#\s]+)(#[^()\s]*)?\)")


def on_files(files, config):
    """Add the pages that lie beside docs/."""
    for name, page in PAGES.items():
        content = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links lead to the site's pages, and those to other files to the repository."""
    folder = ROOT if page.file.src_uri in PAGES.values() else ROOT / "docs"

    def lead(link):
        path, anchor = (folder / link[1]).resolve(), link[2] or ""
        if "://" in link[1] or not path.exists():
            return link[0]
        name = path.relative_to(ROOT).as_posix()
        if name in PAGES:
            return f"]({PAGES[name]}{anchor})"
        if name.startswith("docs/"):
            return f"]({name.removeprefix('docs/')}{anchor})"
        return f"]({config.repo_url}/blob/main/{name}{anchor})"

    return LINK.sub(lead, markdown)
