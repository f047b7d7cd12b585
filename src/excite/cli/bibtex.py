"""A method's paper as BibTeX, read off the line that its card has."""

import re

from excite.errors import UsageError
from excite.registry import METHODS, get_method

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
VENUE = re.compile(r", (?P<venue>[A-Z][\w ]*?)? ?(?P<year>(?:19|20)\d\d)\b")
CODE = re.compile(r"github\.com/[\w./-]*\w")
JOURNALS = ("IEEE Access", "Neurocomputing", "Engineering Applications of Artificial Intelligence")


def bibtex(name: str) -> str:
    """Return the BibTeX entry of a method's paper; methods of one paper share it.

    Authors are family names, as on the cards. A variant that a library made has the entry of the paper that it varies.
    Raises UsageError for an unknown method and for one without a paper.
    """
    line = get_method(name).paper
    arxiv = ARXIV.search(line)
    if "(" in line.partition(":")[0] and arxiv:  # "variant of ECA-Net (CVPR 2020, arXiv:...) in ..."
        papers = (get_method(other).paper for other in METHODS)
        line = next(p for p in papers if arxiv.group() in p and "(" not in p.partition(":")[0])
    venue, code = VENUE.search(line), CODE.search(line)
    if venue is None and code is None:
        raise UsageError(f"method {name!r} has no paper: {line}")
    end = min(m.start() for m in (venue, code and re.search(", code ", line)) if m)
    head, _, rest = line[:end].partition(": ")
    authors = head.replace(" et al.", ", others").split(", ") if venue else []
    title = rest if authors else line[:end]
    year = venue["year"] if venue else ""
    place = (venue["venue"] or "") if venue else ""
    short = re.sub(r"[^a-z0-9]", "", re.split(r"[ :,]", title)[0].lower())
    key = re.sub(r"[^a-z]", "", authors[0].lower()) + year + short if authors else short
    kind, where = "misc", ""
    if place:
        kind, where = ("article", "journal") if place in JOURNALS else ("inproceedings", "booktitle")
    fields = {
        "title": "{" + title.replace("&", r"\&") + "}",
        "author": " and ".join(authors),
        where: place,
        "year": year,
    }
    if arxiv:
        fields |= {"eprint": arxiv.group(1), "archivePrefix": "arXiv"}
    elif code:
        fields["url"] = f"https://{code.group()}"
    rows = [f"  {field} = {{{value}}}," for field, value in fields.items() if field and value]
    return "\n".join([f"@{kind}{{{key},", *rows, "}"])
