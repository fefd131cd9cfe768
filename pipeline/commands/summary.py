"""`python -m pipeline.commands.summary`: the verdicts of report/report.json in Markdown, for a pull request."""

from pipeline import command
from pipeline.report.saving import saved

SIGNS = {ord(sign): f"&#{ord(sign)};" for sign in "&\\`*_{}[]()#+!|<>@~"}
MOST = 60_000  # characters; GitHub takes 65,536 in a comment


def escaped(text: str) -> str:
    """Returns text as a cell of a table, in which nothing is a link, a mention or HTML."""
    return " ".join(text.translate(SIGNS).split())


def main() -> None:
    """Prints a table of the claims."""
    found = saved()
    lines = [
        f"**{escaped(found['study'])}**: {found['claims_decided']} of {found['claims_of_the_paper']} claims "
        "of the paper decided", "", "| verdict | claim | evidence |", "|---|---|---|",
        *(
            f"| {escaped(one['verdict'])} | {escaped(one['claim'])} | {escaped(one['evidence'])} |"
            for one in found["verdicts"]
        ),
    ]  # fmt: skip
    print("\n".join(lines)[:MOST])


if __name__ == "__main__":
    command.main(main)
