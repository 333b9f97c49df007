"""`bestiary board`: a page that shows runs while they go on, or one file of it."""

from __future__ import annotations

import threading
from pathlib import Path

import click


@click.command("board")
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
@click.option("--port", type=click.IntRange(0, 65535), default=6010, show_default=True,
              help="0 for any that is free.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; anything but this machine's own needs a token, "
                   "which is made and printed.")  # fmt: skip
@click.option("--name", "names", multiple=True,
              help="A further name under which the page may be asked for.")  # fmt: skip
@click.option("--export", "target", type=click.Path(path_type=Path, dir_okay=False),
              help="Write one file that needs no server instead.")  # fmt: skip
@click.option("--open", "opened", is_flag=True, help="Open the page in a browser.")
def board_command(
    folder: Path, port: int, host: str, names: tuple[str, ...], target: Path | None, opened: bool
) -> None:
    """Show the runs in FOLDER (runs, unless named) on a page of this machine, live."""
    from ...core.insight.board.content import Board

    board = Board(folder)
    if target is not None:
        from ...core.insight.board.export import export

        click.echo(str(export(board, target)))
        return
    from ...core.insight.board.server import BoardServer

    with BoardServer(board, host, port, names=names) as server:
        # The runs are read while the browser is being opened.
        threading.Thread(target=board.update, daemon=True).start()
        click.echo(f"{server.url}  (Ctrl-C ends it)")
        if opened:
            click.launch(server.url)
        server.serve_forever()
