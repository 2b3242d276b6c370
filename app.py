"""The entry point: `app:app` for a WSGI server, `python app.py` to start the server from here."""

from pathlib import Path

if __name__ == "__main__":
    from wxauth.cli.commands import start

    start(Path(__file__).parent)
else:
    from wxauth.wsgi import app as app
