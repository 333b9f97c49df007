"""`bestiary push`: a saved model as a repository on the hub."""

from __future__ import annotations

from pathlib import Path

import click

from .output import json_option, megabytes, print_json, print_table


@click.command("push")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repo")
@click.option("--private", is_flag=True, help="Of a repository that is made anew.")
@click.option("-m", "--message", help="Of the commit.")
@click.option("--revision", help="The branch; main unless given.")
@click.option("--pull-request", is_flag=True, help="Offer the commit to the owner instead.")
@click.option("--dry-run", is_flag=True, help="Say what would be uploaded, and upload nothing.")
@json_option
def push_command(
    folder: Path,
    repo: str,
    private: bool,
    message: str | None,
    revision: str | None,
    pull_request: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Upload FOLDER, which model.save wrote, as the repository REPO (org/name).

    The repository is made if there is none. Hidden files are never uploaded.
    """
    from ..sharing import plan, push

    planned = plan(folder, repo)
    files = {name: path.stat().st_size for name, path in planned.files.items()}
    if not as_json:
        for remark in planned.remarks:
            click.echo(f"note: {remark}", err=True)
        if dry_run:
            print_table([[name, megabytes(size)] for name, size in files.items()])
        click.echo(f"{len(files)} files, {megabytes(planned.size)}", err=True)
    told = {"repo": repo, "files": files, "remarks": list(planned.remarks)}
    if dry_run:
        if as_json:
            print_json({**told, "pushed": False})
        return
    done = push(
        folder,
        repo,
        private=private,
        message=message,
        revision=revision,
        pull_request=pull_request,
    )
    if as_json:
        print_json(
            {
                **told,
                "pushed": True,
                "commit": done.commit,
                "url": done.url,
                "pull_request": done.pull_request,
            }
        )
    else:
        click.echo(done.pull_request or done.url)
